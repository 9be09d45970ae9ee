"""How the sample corpus speaks: 24 voices and what each emotion does to them.

The rules follow what is reported of acted and synthetic emotional speech (numbers in brackets: see below).

==========  ==========================================================================================
neutral     the reference
calm        lower, slower, softer, steeper spectrum, some breath, longer pauses: low-arousal tenderness
            [3], lax-creaky to breathy voice [6]
happy       higher, much wider range, a little faster and louder, brighter [1, 3, 4, 5]
sad         a little lower, narrow range, slow, soft, steep spectrum, breathy, long pauses, irregular
            voicing [1, 3, 4, 5, 6]
angry       higher, wide range, faster, loudest, brightest, tense (least breathy), no pauses, rough
            [1, 3, 4, 5, 6]
fearful     much higher, fastest, breathy, irregular voicing [1, 3, 4, 5]; on its range reports differ:
            little [3] or much [4]
disgust     lowest, slow, creaky, pauses; level near neutral, a slightly wider range [1, 4]
surprised   high, widest range, ends on a rise [7]
==========  ==========================================================================================

The directions are theirs; the numbers are ours, chosen so that emotions overlap in every single factor.

References
----------
[1] Banse and Scherer (1996), Acoustic profiles in vocal emotion expression, J Pers Soc Psychol 70(3).
[2] Livingstone and Russo (2018), The Ryerson Audio-Visual Database of Emotional Speech and Song
    (RAVDESS), PLoS ONE 13(5): the cells, the statements and the file names.
[3] Juslin and Laukka (2003), Communication of emotions in vocal expression and music performance:
    different channels, same code?, Psychol Bull 129(5).
[4] Murray and Arnott (1993), Toward the simulation of emotion in synthetic speech, JASA 93(2).
[5] Burkhardt and Sendlmeier (2000), Verification of acoustical correlates of emotional speech using
    formant-synthesis, ISCA Workshop on Speech and Emotion.
[6] Gobl and Ní Chasaide (2003), The role of voice quality in communicating emotion, mood and attitude,
    Speech Commun 40.
[7] Cahn (1990), The generation of affect in synthesized speech, J Am Voice I/O Soc 8.
[8] Scherer (2003), Vocal communication of emotion: a review of research paradigms, Speech Commun 40:
    an overview of what most studies agree on.
"""

from __future__ import annotations

import numpy as np

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
STATEMENTS = {1: "Kids are talking by the door", 2: "Dogs are sitting by the door"}

FACTORS = (
    "f0_semitones",  # median, over the voice's own base
    "f0_range_semitones",  # between the 5th and the 95th percentile
    "rate",  # relative to the voice's own
    "level_db",  # RMS of the speech, dBFS
    "tilt_db_per_octave",  # added to the voice's own spectrum
    "breathiness",  # amplitude of the noise relative to the speech, above 1.2 kHz
    "jitter_percent",  # standard deviation of a pitch period
    "pause_seconds",  # before "by the door"
    "final_rise",  # 0 or 1: ends like a question
)
RULES = {  # f0   range  rate  level  tilt  breath jitter pause  P(final rise)
    "neutral": (0.0, 4.5, 1.00, -30.0, 0.0, 0.12, 0.5, 0.06, 0.05),
    "calm": (-1.6, 3.5, 0.88, -33.0, -1.2, 0.30, 0.4, 0.17, 0.05),
    "happy": (3.6, 8.5, 1.12, -27.0, 0.8, 0.10, 0.6, 0.03, 0.30),
    "sad": (-1.0, 3.0, 0.80, -35.0, -1.8, 0.34, 1.1, 0.20, 0.05),
    "angry": (2.6, 7.5, 1.18, -23.5, 1.8, 0.04, 1.2, 0.02, 0.05),
    "fearful": (5.6, 4.5, 1.24, -29.5, 0.6, 0.28, 2.0, 0.08, 0.25),
    "disgust": (-2.4, 5.5, 0.82, -29.5, 0.8, 0.06, 1.6, 0.14, 0.05),
    "surprised": (5.2, 10.0, 1.02, -27.5, 0.2, 0.18, 0.5, 0.04, 0.85),
}
INTENSITY = {"normal": 0.8, "strong": 1.3}  # how far from neutral towards the emotion (and past it)
# Standard deviations: inside a cell (speaker, emotion, intensity, statement), and of the voices' habits.
WITHIN = dict(zip(FACTORS, (1.8, 1.5, 0.09, 2.2, 0.75, 0.07, 0.38, 0.05, 0.0)))
HABIT = dict(zip(FACTORS, (0.0, 0.8, 0.05, 1.2, 0.5, 0.04, 0.15, 0.02, 0.0)))
LIMITS = dict(
    zip(FACTORS, ((-6, 11), (1.5, 14), (0.6, 1.6), (-42, -20), (-3.5, 3.5), (0, 0.6), (0.1, 3.5), (0, 0.4), (0, 1)))
)

# One factor at a time: a neutral base (the rule's values) and the levels that each factor is set to in turn.
BASE = dict(zip(FACTORS, (0.0, 4.5, 1.0, -30.0, 0.0, 0.12, 0.5, 0.06, 0.0)))
LEVELS = {
    "f0_semitones": (-3.0, 2.0, 4.0, 7.0),
    "f0_range_semitones": (2.0, 7.0, 9.5, 12.0),
    "rate": (0.75, 0.87, 1.15, 1.35),
    "level_db": (-38.0, -34.0, -26.0, -22.0),
    "tilt_db_per_octave": (-3.0, -1.5, 1.5, 3.0),
    "breathiness": (0.0, 0.25, 0.4, 0.55),
    "jitter_percent": (0.1, 1.2, 2.0, 3.0),
    "pause_seconds": (0.0, 0.14, 0.22, 0.32),
    "final_rise": (1.0,),
}
ONE_FACTOR_ACTORS = (1, 2, 21, 22)  # two training and two test voices

TEST_ACTORS = tuple(range(17, 25))
# actor: F0 base (Hz), words per minute, then in percent: all formants, F1-F3 on top of that,
# strength of F1-F4, bandwidth, voicing
VOICES = {
    1: (112, 165, 100, (100, 100, 100), (100, 100, 100, 100), 100, 100),
    2: (205, 168, 114, (104, 102, 101), (90, 85, 90, 90), 120, 95),
    3: (96, 155, 95, (97, 99, 97), (105, 95, 90, 80), 90, 120),
    4: (182, 158, 110, (100, 104, 103), (95, 80, 85, 80), 140, 90),
    5: (128, 176, 103, (96, 104, 101), (95, 110, 100, 90), 110, 95),
    6: (232, 175, 118, (102, 98, 104), (85, 95, 80, 85), 110, 90),
    7: (88, 150, 92, (103, 96, 99), (115, 85, 80, 90), 120, 110),
    8: (195, 162, 112, (108, 98, 97), (80, 100, 95, 70), 100, 105),
    9: (140, 170, 105, (102, 98, 103), (100, 90, 110, 100), 85, 100),
    10: (218, 180, 116, (97, 105, 99), (100, 75, 90, 100), 130, 85),
    11: (104, 160, 98, (105, 103, 96), (90, 100, 75, 70), 130, 90),
    12: (172, 152, 107, (103, 97, 105), (105, 90, 75, 90), 90, 115),
    13: (120, 182, 96, (95, 97, 104), (110, 105, 95, 75), 95, 105),
    14: (245, 170, 121, (96, 101, 97), (90, 90, 100, 75), 125, 80),
    15: (133, 158, 101, (104, 95, 98), (85, 95, 105, 110), 115, 85),
    16: (188, 178, 109, (95, 101, 98), (110, 105, 80, 80), 105, 100),
    17: (100, 168, 97, (99, 102, 102), (100, 80, 100, 100), 105, 115),
    18: (212, 160, 115, (106, 101, 100), (95, 95, 85, 105), 95, 95),
    19: (124, 172, 102, (101, 100, 96), (110, 90, 85, 105), 135, 90),
    20: (226, 166, 117, (99, 103, 102), (80, 85, 105, 90), 115, 100),
    21: (92, 162, 94, (96, 103, 101), (95, 105, 85, 90), 110, 100),
    22: (178, 172, 111, (98, 96, 102), (100, 100, 90, 90), 120, 110),
    23: (146, 156, 106, (98, 101, 97), (105, 80, 90, 80), 125, 95),
    24: (200, 155, 113, (101, 106, 96), (85, 80, 95, 95), 150, 85),
}


def sex(actor):
    """RAVDESS numbering: odd actors are male, even ones female."""
    return "male" if actor % 2 else "female"


def split(actor):
    """The last eight voices, four of each sex, are never trained on."""
    return "test" if actor in TEST_ACTORS else "train"


def variant(actor, low, high):
    """The text of an espeak-ng voice variant that speaks between about `low` and `high` Hz."""
    _, _, scale, formants, strengths, width, voicing = VOICES[actor]
    lines = [
        "language variant",
        "name workbook",
        f"gender {sex(actor)}",
        f"pitch {low} {high}",
        "flutter 0",
        "roughness 0",  # its cycle counter survives from clip to clip, so clips would depend on their order
        f"voicing {voicing}",
        f"formant 0 {scale} 100 {width}",
    ]
    for n, strength in enumerate(strengths, start=1):
        lines.append(f"formant {n} {scale * (formants[n - 1] if n < 4 else 100) // 100} {strength} {width}")
    lines += [f"formant {n} {scale} 80 {width}" for n in range(5, 9)]
    return "\n".join(lines) + "\n"


def factors(actor, emotion, intensity, statement):
    """Draw the factors of one clip: the rule, plus the voice's habit, plus a draw of the clip's own.

    Returns
    -------
    dict
        One value per name in `FACTORS`, the same on every call.
    """
    rule, neutral = (np.array(RULES[name]) for name in (emotion, "neutral"))
    strength = INTENSITY[intensity] if emotion != "neutral" else 1.0
    habit = np.random.default_rng([1, actor]).normal(size=len(FACTORS)).clip(-2, 2)
    rng = np.random.default_rng([2, actor, EMOTIONS.index(emotion), list(INTENSITY).index(intensity), statement])
    draw = rng.normal(size=len(FACTORS)).clip(-2.5, 2.5)
    values = neutral + strength * (rule - neutral)
    drawn = {}
    for i, name in enumerate(FACTORS):
        value = values[i] + HABIT[name] * habit[i] + WITHIN[name] * draw[i]
        drawn[name] = round(float(np.clip(value, *LIMITS[name])), 4)
    drawn["final_rise"] = float(rng.random() < np.clip(values[-1], 0.03, 0.95))
    return drawn


def cells():
    """Every clip of the main corpus: (actor, emotion, intensity, statement)."""
    for actor in VOICES:
        for emotion in EMOTIONS:
            for intensity in INTENSITY if emotion != "neutral" else ("normal",):
                for statement in STATEMENTS:
                    yield actor, emotion, intensity, statement


def one_factor_cells():
    """The marked subset: (actor, repetition, varied factor or "", factors); repetition 1 is the base."""
    for actor in ONE_FACTOR_ACTORS:
        yield actor, 1, "", dict(BASE)
        changes = [(name, level) for name, levels in LEVELS.items() for level in levels]
        for repetition, (name, level) in enumerate(changes, start=2):
            yield actor, repetition, name, {**BASE, name: level}


def pitch_line(actor, semitones, span):
    """Lowest and highest pitch (Hz) to ask espeak-ng for, to hear a median and a 5-95 % span in semitones.

    The two constants were measured on espeak-ng 1.51's English intonation. Under 55 Hz it breaks
    into octave jumps, so deep voices give up range first.
    """
    median = VOICES[actor][0] * 2 ** (semitones / 12)
    width = median * (2 ** (span / 24) - 2 ** (-span / 24)) / 0.65
    width = min(width, (median + 9 - 55) / 0.74)
    low = median + 9 - 0.74 * width
    return round(low), round(low + width)
