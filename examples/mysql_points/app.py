"""The product's application, with points in MySQL: `uvicorn examples.mysql_points.app:app`."""

from fastapi import FastAPI

from examples.mysql_points.settings import PointsSettings
from examples.mysql_points.wiring import PointsServices
from main import create_app
from tristore.settings import MissingDSN, load


def __getattr__(name: str) -> FastAPI:
    if name != "app":
        raise AttributeError(name)
    settings = load(PointsSettings)
    try:
        settings.require_dsns()
    except MissingDSN as error:
        raise SystemExit(str(error)) from None
    return create_app(settings, services=PointsServices)
