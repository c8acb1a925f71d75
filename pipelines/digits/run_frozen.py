import numpy as np
import tensorflow as tf

graph = tf.compat.v1.GraphDef.FromString(open("pipelines/build/digits.pb", "rb").read())
load = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(graph, name=""), [])
classify = load.prune("image:0", "probabilities:0")
digits = np.load("pipelines/digits/held_out.npz")
print(classify(tf.constant(digits["image"][:20])).numpy().argmax(axis=1))
print(digits["labels"][:20])
