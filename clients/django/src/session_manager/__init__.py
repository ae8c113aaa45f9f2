"""Sessions kept inside PostgreSQL by the extension session_manager, for Django and DRF."""

__version__ = "1.0.0"
