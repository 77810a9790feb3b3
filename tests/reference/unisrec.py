"""UniSRec's contrastive tasks, literally, in NumPy float64.

Paper: Hou et al., "Towards Universal Sequence Representation Learning for Recommender Systems", KDD 2022. Its adaptor
(parametric whitening and mixture of experts) has the equations of ANT's text vector, see `ant.text_or_image_vector`.
"""

import math

from tests.reference.ant import cosine
from tests.reference.sasrec import Array


def sequence_sequence_loss(sequences: Array, augmented: Array, tau: float) -> float:
    """Mean over sequences [B, d] of -log of the share of a sequence's own augmented form among all, [B, d]."""
    total = 0.0
    for j, sequence in enumerate(sequences):
        shares = [math.exp(cosine(sequence, other) / tau) for other in augmented]
        total += -math.log(shares[j] / sum(shares))
    return total / len(sequences)
