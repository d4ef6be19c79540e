"""The backend of scikit-learn models: the input `input`, and the outputs `label` and, where available, `probability`.

Triton's python backend loads this file by path, in its own interpreter with numpy, joblib and scikit-learn.
Like a pickle, a joblib file runs code when it is read: writers of the storage can run code in the pod.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import triton_python_backend_utils as pb_utils

_NAMES = ("model.joblib", "model.pkl")
_DEFAULT_BATCH = 64


class TritonPythonModel:
    """An instance of a version of a model."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Complete the configuration with the tensors of the fitted model.

        Args:
            config: Triton's pb_utils.ModelConfig.
        """
        known = config.as_dict()
        # Triton's model folder is the folder of default_model_filename.
        depth = len(Path(known.get("default_model_filename") or _NAMES[0]).parts) - 1
        model = _load_model(Path(pb_utils.get_model_dir()).joinpath(*[".."] * depth).resolve(), known)
        if not known["max_batch_size"]:
            config.set_max_batch_size(_DEFAULT_BATCH)
        if "dynamic_batching" not in known and "sequence_batching" not in known:
            config.set_dynamic_batching()
        features = int(getattr(model, "n_features_in_", -1))
        if not known["input"]:
            config.add_input({"name": "input", "data_type": "TYPE_FP32", "dims": [features]})
        if not known["output"]:
            label = np.asarray(model.predict(np.zeros((1, max(1, features)), dtype=np.float32)))
            config.add_output(
                {"name": "label", "data_type": _get_triton_type(label), "dims": list(label.shape[1:]) or [1]}
            )
            if _has_probability(model):
                config.add_output({"name": "probability", "data_type": "TYPE_FP32", "dims": [len(model.classes_)]})
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Read the model. Triton forwards the message of joblib's exceptions.

        Args:
            args: Triton's arguments.
        """
        config = json.loads(args["model_config"])
        self._model = _load_model(Path(args["model_repository"]) / args["model_version"], config)
        _check_config(config, self._model)
        self._input = config["input"][0]["name"]
        self._types = {
            tensor["name"]: pb_utils.triton_string_to_numpy(tensor["data_type"]) for tensor in config["output"]
        }

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of a batch with one prediction; if that fails, with one for each request.

        Args:
            requests: The requests.
        """
        rows = [pb_utils.get_input_tensor_by_name(request, self._input).as_numpy() for request in requests]
        try:
            outputs = self._predict(np.concatenate(rows))
        except Exception:
            if len(requests) == 1:
                raise  # Triton counts an exception as a failure, and an error response as a success
            # The single predictions show which request is the cause.
            return [self._predict_one(request, row) for request, row in zip(requests, rows, strict=True)]
        cuts = np.cumsum([len(row) for row in rows])[:-1]
        split = {name: np.split(values, cuts) for name, values in outputs.items()}
        return [
            _build_response(request, {name: parts[index] for name, parts in split.items()})
            for index, request in enumerate(requests)
        ]

    def _predict_one(self, request: Any, row: np.ndarray) -> Any:
        try:
            return _build_response(request, self._predict(row))
        except Exception as error:  # noqa: BLE001  the error is the answer to this request
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))

    def _predict(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        outputs = {}
        if "label" in self._types:
            label = np.asarray(self._model.predict(rows))
            label = label.reshape(len(rows), -1)
            outputs["label"] = label.astype(self._types["label"])
        if "probability" in self._types:
            outputs["probability"] = np.asarray(self._model.predict_proba(rows)).astype(self._types["probability"])
        return outputs


def _build_response(request: Any, outputs: dict[str, np.ndarray]) -> Any:
    names = set(request.requested_output_names())
    tensors = [pb_utils.Tensor(name, values) for name, values in outputs.items() if name in names]
    return pb_utils.InferenceResponse(output_tensors=tensors)


def _load_model(folder: Path, config: Any) -> Any:
    default = config.get("default_model_filename")
    for name in (default,) if default else _NAMES:
        if (folder / name).is_file():
            model = joblib.load(folder / name)
            if not hasattr(model, "predict"):
                message = f"{name} holds a {type(model).__name__}, which has no predict"
                raise pb_utils.TritonModelException(message)
            return model
    expected = f"{default} (default_model_filename)" if default else " or ".join(_NAMES)
    raise pb_utils.TritonModelException(f"version {folder.name} has no {expected}. Upload it, or correct config.pbtxt.")


def _check_config(config: Any, model: Any) -> None:
    """Refuse a configuration with inputs, outputs or settings that this backend or the model does not have."""
    names = [tensor["name"] for tensor in config["input"]]
    if len(names) != 1:
        message = f"config.pbtxt names the inputs {names}; a scikit-learn model has one. Remove the others."
        raise pb_utils.TritonModelException(message)
    offered = ["label", *(["probability"] if hasattr(model, "predict_proba") else [])]
    unknown = [tensor["name"] for tensor in config["output"] if tensor["name"] not in offered]
    if unknown:
        message = f"config.pbtxt names the outputs {unknown}; the model has {offered}. Correct the names."
        raise pb_utils.TritonModelException(message)
    if (config.get("model_transaction_policy") or {}).get("decoupled"):
        message = (
            "config.pbtxt sets model_transaction_policy.decoupled, which this backend does not support. Remove it."
        )
        raise pb_utils.TritonModelException(message)


def _has_probability(model: Any) -> bool:
    classes = getattr(model, "classes_", None)
    return hasattr(model, "predict_proba") and isinstance(classes, np.ndarray)


def _get_triton_type(label: np.ndarray) -> str:
    if label.dtype.kind in "OUS":
        return "TYPE_STRING"
    if label.dtype.kind in "iub":
        return "TYPE_INT64"
    return "TYPE_FP32"
