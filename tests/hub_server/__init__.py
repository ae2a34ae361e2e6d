"""A small Hub on 127.0.0.1 for tests: repositories in memory, LFS and Xet storage, faults on request.

The client that talks to it is always the genuine one, in processes of their own, reached by `HF_ENDPOINT`.
"""

from hub_server.faults import Fault
from hub_server.server import HubServer
from hub_server.store import Repo, Store

__all__ = ["Fault", "HubServer", "Repo", "Store"]
