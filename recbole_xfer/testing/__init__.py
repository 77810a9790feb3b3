"""Public tests for models of this package and of others; docs/adding_a_model.md shows how to use them.

* :mod:`~recbole_xfer.testing.contract`: the tests that every model passes; a model's test class inherits them.
* :mod:`~recbole_xfer.testing.planted`: generated domains with a known answer, which a transfer model must find.
* :mod:`~recbole_xfer.testing.data`: small random datasets and configurations of small models, for further tests.
* :mod:`~recbole_xfer.testing.isolation`: runs each test in a folder of its own.

Raises ImportError where pytest is missing.
"""

try:
    import pytest
except ImportError as error:
    raise ImportError("recbole_xfer.testing needs pytest. Run `pip install pytest`.") from error

pytest.register_assert_rewrite("recbole_xfer.testing.contract", "recbole_xfer.testing.planted")
