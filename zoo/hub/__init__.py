"""The Hugging Face Hub: publishing packages, fetching them verified, searching."""

from zoo.hub.fetch import Fetched, fetch, load, local_folder
from zoo.hub.ref import Ref, parse_ref

__all__ = ["Fetched", "Ref", "fetch", "load", "local_folder", "parse_ref"]
