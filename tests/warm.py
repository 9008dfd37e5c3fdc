"""What each app process of the tests has done before it is forked: see tristore/testing/warm.py."""

import gc

import uvicorn.lifespan.on  # noqa: F401 - the server imports it when it starts

import tristore.http.protocol  # noqa: F401 - likewise
from config import Settings
from main import create_app

create_app(Settings(_env_file=None, environment="test"))  # it imports the routers, and fills caches
gc.collect()
gc.freeze()  # or the collection at the start of each process would look through all that, and copy it
