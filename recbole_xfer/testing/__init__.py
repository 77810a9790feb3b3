"""Public tests for models, of this package and of others: a contract, a planted truth, and small datasets.

A model's test inherits :class:`~recbole_xfer.testing.contract.ModelContract` and names the model; see
docs/adding_a_model.md. Raises ImportError where pytest is missing.
"""

try:
    import pytest
except ImportError as error:
    raise ImportError("recbole_xfer.testing needs pytest. Run `pip install pytest`.") from error

pytest.register_assert_rewrite("recbole_xfer.testing.contract", "recbole_xfer.testing.planted")
