"""Sessions kept inside PostgreSQL by the extension session_manager, for Django and DRF.

The modules here are for applications.  What they are made of stands in three rooms, each of which
imports only from those after it: api (the endpoints), http (a request and its session) and store
(the extension's functions, the transaction, the cache).
"""

__version__ = "1.0.0"
