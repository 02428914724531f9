"Train a denoiser with label dropout: `python train.py --help`."
from cfg_course.cli import train_main

if __name__ == '__main__': train_main()
