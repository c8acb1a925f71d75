#!/usr/bin/env python3
"""Trains the model of the demo: a small convolutional classifier of handwritten digits.

    python pipelines/digits/train.py

It needs ``pip install freezeflow[dev]`` (scikit-learn brings the data set) and writes, beside itself:

    model/          the trained classifier, a SavedModel as Keras 3 exports it
    held_out.npz    64 digits that it was not trained on: `image`, float32 [64, 8, 8, 1] with grey
                    values from 0 to 16, and `labels`, int64 [64]

The data is the test part of the "Optical Recognition of Handwritten Digits" data set (E. Alpaydin,
C. Kaynak; UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0).
"""

import os
import pathlib
import shutil

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits

HERE = pathlib.Path(__file__).resolve().parent
SEED = 20
HELD_OUT = 64
EPOCHS = 20


def read_digits():
    """Images float32 [1797, 8, 8, 1] and labels int64 [1797], shuffled with a fixed seed."""
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    images = digits.images[order, :, :, np.newaxis].astype(np.float32)
    return images, digits.target[order].astype(np.int64)


def convolution(tensor, filters, strides):
    """Convolution, batch norm, ReLU: the batch norm is what folding gets its teeth into."""
    tensor = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(tensor)
    tensor = layers.BatchNormalization()(tensor)
    return layers.ReLU()(tensor)


def build_classifier():
    """Grey values [n, 8, 8, 1] to probabilities [n, 10]."""
    image = keras.Input((8, 8, 1), name="image")
    tensor = layers.Rescaling(1 / 8, offset=-1)(image)
    tensor = convolution(tensor, 16, 1)
    tensor = convolution(tensor, 32, 2)
    tensor = convolution(tensor, 32, 2)
    tensor = layers.Dropout(0.2)(layers.Flatten()(tensor))
    probabilities = layers.Dense(10, activation="softmax")(tensor)
    return keras.Model({"image": image}, {"probabilities": probabilities}, name="digits")


def train(model, images, labels):
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="sparse_categorical_crossentropy")
    model.fit({"image": images}, labels, batch_size=64, epochs=EPOCHS, verbose=0)


def main():
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    images, labels = read_digits()
    model = build_classifier()
    train(model, images[HELD_OUT:], labels[HELD_OUT:])

    shutil.rmtree(HERE / "model", ignore_errors=True)
    model.export(HERE / "model", format="tf_saved_model", verbose=False)
    np.savez_compressed(HERE / "held_out.npz", image=images[:HELD_OUT], labels=labels[:HELD_OUT])

    guesses = model.predict({"image": images[:HELD_OUT]}, verbose=0)["probabilities"].argmax(axis=1)
    print(f"{(guesses == labels[:HELD_OUT]).sum()} of {HELD_OUT} held-out digits are right")


if __name__ == "__main__":
    main()
