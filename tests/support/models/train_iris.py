"""Trains a random forest on Fisher's irises and prints it as joblib writes it.

Run in the serving image, so that scikit-learn is the one that will read it: a joblib file is bound to its version.
"""

from __future__ import annotations

import io
import sys

import joblib
from sklearn.datasets import load_iris  # type: ignore[import-not-found]
from sklearn.ensemble import RandomForestClassifier  # type: ignore[import-not-found]

data = load_iris()
buffer = io.BytesIO()  # joblib wants a file that can be sought
joblib.dump(RandomForestClassifier(20, random_state=1).fit(data.data, data.target), buffer)
sys.stdout.buffer.write(buffer.getvalue())
