"""Everything that decides how the bundled WavLM is trained: what it hears, who teaches it, and how it learns."""

from __future__ import annotations

RATE, HOP, SPAN, BANDS = 16_000, 320, 400, 40
ARCHITECTURE = {
    "hidden_size": 144,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "intermediate_size": 576,
    "conv_dim": (164, 144),
    "conv_kernel": (320, 2),  # sees 400 samples every 320, as the usual seven layers do, at a fifth of their cost
    "conv_stride": (80, 4),
    "feat_extract_norm": "layer",  # with do_normalize=False the model hears how loud a clip is
    "conv_bias": True,
    "do_stable_layer_norm": True,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 16,
    "classifier_proj_size": 64,
    "num_buckets": 64,
    "max_bucket_distance": 200,
    "layerdrop": 0.0,
    "mask_time_prob": 0.05,  # transformers' default; what is hidden in training is said below
    "hidden_dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
}
SPEECH = {  # what is prepared once
    "altered": 8,  # further voices for each recording
    "formants": (0.84, 1.19),  # ratio: a longer or shorter vocal tract
    "semitones": 2.5,  # F0 moves along with the formants, and by as much again up or down
    "range": 0.15,  # natural logarithm of the factor on the range of F0
    "tempo": 0.2,  # natural logarithm of the factor on the tempo
    "gain_db": 2.5,  # standard deviation of the level of an altered recording
    "synthetic": 300,  # voices, each saying 30 clips
    "read": (3.5, 3.0),  # seconds of a piece of LibriSpeech, and from one to the next
    "read_gain_db": (-6.0, 5.0),  # mean and standard deviation
}
TEACHER = {  # random convolutions, and a ridge on top of them
    "banks": 3,  # teachers, averaged
    "kernels": 400,  # of a bank, for each dilation
    "dilations": (1, 2, 4, 8),
    "taps": 7,
    "inputs": 9,  # a kernel looks at so many of the 36 at most
    "bias": 0.7,
    "balanced": 0.6,  # share of the kernels whose taps sum to zero: they do not hear what is constant
    "slope": 4.0,
    "ridge": 2000.0,
    "folds": 8,  # of the training actors
}
FIT = {"weight_decay": 0.05, "average": 0.998}
LISTEN = {  # first: hear what is said and how, and guess what is hidden; no recorded emotion is named
    "epochs": 10,
    "steps": 150,
    "learning_rate": 1.2e-3,
    "batch": {"ravdess": 20, "synthetic": 20, "librispeech": 24},
    "hidden": 0.3,  # share of the frames
    "weights": {"emotion": 1.0, "bands": 1.0, "hidden": 1.0, "factors": 0.3, "frames": 0.0, "clips": 0.0},
    "label_weight": {"ravdess": 0.0, "synthetic": 1.0, "librispeech": 0.0},
}
LEARN = {  # then: emotions, from the labels and from the teachers' judgement of every frame
    "epochs": 20,
    "steps": 150,
    "learning_rate": 1.2e-3,
    "batch": {"ravdess": 40, "synthetic": 12, "librispeech": 12},
    "hidden": 0.0,
    "weights": {"emotion": 1.0, "bands": 0.5, "hidden": 0.0, "factors": 0.3, "frames": 1.0, "clips": 0.5},
    "label_weight": {"ravdess": 0.5, "synthetic": 1.0, "librispeech": 0.0},
}
READ_AT = 2  # layer from which log-mel bands and F0 are read while training
AS_RECORDED = 0.15  # share of the recordings that are heard in the actor's own voice
SECONDS = (2.2, 2.8, 3.6)  # of a training window; clips are read whole when the model is used
AUGMENT = {"speed": 0.06, "gain_db": 3.0, "judged_gain_db": 0.5, "room": 0.1, "noise": 0.5, "noise_db": (12.0, 45.0)}
SMOOTHING, SHARPNESS = 0.1, 4.0  # of labels; of the teachers' scores (4 makes them calibrated)
WINDOW, STEP = 8, 4  # frames over which a teacher and the network are compared
PROCESSES = 4  # that share a batch where there is no GPU
EVERYTHING = {name: value for name, value in list(globals().items()) if name.isupper()}
