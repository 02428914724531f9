"Draw guided samples from a trained model: `python sample.py --help`."
from cfg_course.cli import sample_main

if __name__ == '__main__': sample_main()
