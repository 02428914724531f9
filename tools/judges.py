"Train the judges that the package ships, on the training parts alone, and write them with the accuracy on the test parts."
from pathlib import Path

from cfg_course.classifiers import predict, save_classifier, train_classifier
from cfg_course.data import load_data

WEIGHTS = Path(__file__).resolve().parents[1]/'cfg_course'/'weights'
EPOCHS = dict(digits=60, mnist=3)


def make(
    name:str, # data set
    epochs:int # passes over its training part
):
    "Train, test and write one judge."
    net, test = train_classifier(load_data(name), epochs=epochs, progress=True), load_data(name, 'test')
    accuracy = (predict(net, test.x).argmax(1) == test.y).double().mean().item()
    facts = dict(data=name, test_accuracy=round(accuracy, 4), training=dict(epochs=epochs))
    save_classifier(net, WEIGHTS/f'{name}-classifier.safetensors', **facts)
    print(facts)


if __name__ == '__main__':
    for name, epochs in EPOCHS.items(): make(name, epochs)
