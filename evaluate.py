"Measure a model over guidance scales: `python evaluate.py --help`."
from cfg_course.cli import evaluate_main

if __name__ == '__main__': evaluate_main()
