"""The Hub's own routes."""

from __future__ import annotations

import base64
import json
import time
from typing import Any
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hub_server.cas import Cas
from hub_server.store import Commit, File, Repo, Store, is_lfs

KINDS = (
    ("/api/models/{owner}/{name}", "/{owner}/{name}"),
    *((f"/api/{kind}/{{owner}}/{{name}}", f"/{kind}/{{owner}}/{{name}}") for kind in ("spaces", "datasets")),
)
"""Where the routes of models, of Spaces and of datasets begin."""


def key_of(request: Request) -> str:
    """A repository's key in the store: OWNER/NAME, of a Space or a dataset with its kind before it."""
    name = f"{request.path_params['owner']}/{request.path_params['name']}"
    for kind in ("spaces", "datasets"):
        if request.url.path.startswith((f"/api/{kind}/", f"/{kind}/")):
            return f"{kind}/{name}"
    return name


TYPES = {"html": "text/html", "mjs": "text/javascript", "wasm": "application/wasm"}


class Refused(Exception):
    """An error answer, with the Hub's code for it."""

    def __init__(self, status: int, code: str = "", message: str = "", commit: str = "") -> None:
        self.status, self.code, self.message, self.commit = status, code, message, commit

    def response(self) -> Response:
        headers = {"X-Error-Code": self.code} if self.code else {}
        headers |= {"X-Error-Message": self.message} if self.message else {}
        headers |= {"X-Repo-Commit": self.commit} if self.commit else {}
        return JSONResponse({"error": self.message or self.code}, self.status, headers)


class Api:
    """Handlers over one store."""

    def __init__(self, store: Store, cas: Cas, endpoint: str, cdn: str, xet: bool) -> None:
        self.store, self.cas, self.endpoint, self.cdn, self.xet = store, cas, endpoint, cdn, xet

    # ---- rights ----------------------------------------------------------------------------

    def user(self, request: Request) -> tuple[str, str] | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in self.store.users:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        return self.store.users.get(token)

    def repo(self, request: Request, *, write: bool = False) -> Repo:
        user = self.user(request)
        repo = self.store.repos.get(key_of(request))
        owner = user is not None and user[0] == request.path_params["owner"]
        if repo is None or (repo.private and not owner):
            raise Refused(404 if user else 401, "RepoNotFound", "Repository not found")
        if repo.gated and not owner:
            raise Refused(403 if user else 401, "GatedRepo", "Access to this model is restricted")
        if write and user is None:
            raise Refused(401, "", "Invalid username or password.")
        if write and (not owner or (user is not None and user[1] != "write")):
            raise Refused(403, "", "Forbidden: you must use a write token to upload to a repository")
        return repo

    def commit_of(self, request: Request, repo: Repo) -> Commit:
        commit = repo.resolve(unquote(request.path_params.get("rev", "main")))
        if commit is None:
            raise Refused(404, "RevisionNotFound", "Invalid rev id")
        return commit

    # ---- repositories ------------------------------------------------------------------------

    async def create(self, request: Request) -> Response:
        user = self.user(request)
        payload = await request.json()
        if user is None:
            raise Refused(401, "", "Invalid username or password.")
        owner = payload.get("organization") or user[0]
        if owner != user[0] or user[1] != "write":
            raise Refused(403, "", f"You don't have the rights to create a model under the namespace {owner!r}")
        repo_id, space = f"{owner}/{payload['name']}", payload.get("type") == "space"
        if space and payload.get("sdk") != "static":
            raise Refused(400, "", f"Invalid sdk {payload.get('sdk')!r}; this Hub has static Spaces only")
        key = f"spaces/{repo_id}" if space else repo_id
        url = f"{self.endpoint}/{key}"
        if key in self.store.repos:
            return JSONResponse({"error": "You already created this model repo", "url": url}, 409)
        private = payload.get("visibility") == "private" or bool(payload.get("private"))
        self.store.create(key, private=private)
        return JSONResponse({"url": url, "id": repo_id, "name": repo_id})

    async def delete(self, request: Request) -> Response:
        payload = await request.json()
        user = self.user(request)
        repo_id = f"{payload.get('organization') or (user or ('',))[0]}/{payload['name']}"
        if user is None or not repo_id.startswith(f"{user[0]}/"):
            raise Refused(403, "", "Forbidden")
        key = f"spaces/{repo_id}" if payload.get("type") == "space" else repo_id
        if self.store.repos.pop(key, None) is None:
            raise Refused(404, "RepoNotFound")
        return Response()

    async def whoami(self, request: Request) -> Response:
        user = self.user(request)
        if user is None:
            raise Refused(401, "", "Invalid username or password.")
        return JSONResponse({"type": "user", "name": user[0], "orgs": [], "auth": {"accessToken": {"role": user[1]}}})

    async def validate_yaml(self, request: Request) -> Response:
        import yaml

        try:
            yaml.safe_load((await request.json())["content"].split("---")[1])
        except (yaml.YAMLError, IndexError) as error:
            return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
        return JSONResponse({"errors": [], "warnings": []})

    async def search(self, request: Request) -> Response:
        query = request.query_params
        wanted = query.getlist("filter")
        rows = []
        for repo in self.store.repos.values():
            row = self._info(repo, repo.head(), blobs=False)
            if repo.id.startswith("spaces/") or repo.private or query.get("search", "").lower() not in repo.id.lower():
                continue
            if any(tag not in row["tags"] for tag in wanted):
                continue
            rows.append(row)
        rows.sort(key=lambda r: -r["downloads"])
        return JSONResponse(rows[: int(query.get("limit", 100))])

    async def info(self, request: Request) -> Response:
        repo = self.repo(request)
        commit = self.commit_of(request, repo)
        return JSONResponse(self._info(repo, commit, blobs=request.query_params.get("blobs") in ("true", "True")))

    def _info(self, repo: Repo, commit: Commit, *, blobs: bool) -> dict[str, Any]:
        card = self._card(commit)
        siblings: list[dict[str, Any]] = []
        for path, file in commit.files.items():
            row: dict[str, Any] = {"rfilename": path}
            if blobs:
                row |= {"size": file.size, "blobId": file.oid}
                row |= {"lfs": {"sha256": file.sha256, "size": file.size, "pointerSize": 134}} if file.sha256 else {}
            siblings.append(row)
        return {
            "_id": repo.id,
            "id": repo.id.removeprefix("spaces/").removeprefix("datasets/"),
            "modelId": repo.id.removeprefix("spaces/"),
            "sha": commit.oid,
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "downloads": repo.downloads,
            "likes": 0,
            "tags": [*card.get("tags", []), card.get("library_name", "")],
            "library_name": card.get("library_name"),
            "pipeline_tag": card.get("pipeline_tag"),
            "lastModified": "2026-01-01T00:00:00.000Z",
            "cardData": card,
            "siblings": siblings,
        }

    def _card(self, commit: Commit) -> dict[str, Any]:
        import yaml

        readme = commit.files.get("README.md")
        text = (readme.data or b"").decode(errors="replace") if readme else ""
        if not text.startswith("---\n"):
            return {}
        try:
            card = yaml.safe_load(text.split("---\n")[1])
        except yaml.YAMLError:
            return {}
        return card if isinstance(card, dict) else {}

    async def tree(self, request: Request) -> Response:
        repo = self.repo(request)
        rows = [self._entry(path, file) for path, file in self.commit_of(request, repo).files.items()]
        start = int(request.query_params.get("cursor", 0))
        page = rows[start : start + 1000]
        headers = {}
        if start + 1000 < len(rows):
            headers["Link"] = f'<{self.endpoint}{request.url.path}?recursive=true&cursor={start + 1000}>; rel="next"'
        return JSONResponse(page, headers=headers)

    def _entry(self, path: str, file: File) -> dict[str, Any]:
        row: dict[str, Any] = {"type": "file", "path": path, "size": file.size, "oid": file.oid}
        if file.sha256:
            row["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
            if self.xet and file.sha256 in self.store.xet:
                row["xetHash"] = self.store.xet[file.sha256]
        return row

    async def paths_info(self, request: Request) -> Response:
        repo = self.repo(request)
        files = self.commit_of(request, repo).files
        form = await request.form()
        wanted = form.getlist("paths")
        return JSONResponse([self._entry(p, f) for p, f in files.items() if p in wanted])

    async def refs(self, request: Request) -> Response:
        repo = self.repo(request)

        def rows(kind: str, table: dict[str, str]) -> list[dict[str, str]]:
            return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c} for n, c in table.items()]

        branches = {n: c for n, c in repo.refs.items() if not n.startswith("refs/pr/")}
        return JSONResponse({"branches": rows("heads", branches), "converts": [], "tags": rows("tags", repo.tags)})

    async def commits(self, request: Request) -> Response:
        repo, rows = self.repo(request), []
        commit: Commit | None = self.commit_of(request, repo)
        while commit is not None:
            rows.append(
                {
                    "id": commit.oid,
                    "title": commit.message,
                    "message": "",
                    "authors": [],
                    "date": "2026-01-01T00:00:00.000Z",
                }
            )
            commit = repo.commits.get(commit.parent or "")
        return JSONResponse(rows)

    # ---- writing -----------------------------------------------------------------------------

    async def tag(self, request: Request) -> Response:
        repo = self.repo(request, write=True)
        name = (await request.json())["tag"]
        if name in repo.tags:
            return JSONResponse({"error": "Tag reference exists already"}, 409)
        repo.tags[name] = self.commit_of(request, repo).oid
        return Response(status_code=201)

    async def branch(self, request: Request) -> Response:
        repo = self.repo(request, write=True)
        payload = json.loads(await request.body() or b"{}")
        name = unquote(request.path_params["rev"])
        if name in repo.refs:
            return JSONResponse({"error": "Reference already exists"}, 409)
        start = repo.resolve(payload.get("startingPoint", "main"))
        if start is None:
            raise Refused(404, "RevisionNotFound")
        repo.refs[name] = start.oid
        return Response(status_code=201)

    async def preupload(self, request: Request) -> Response:
        pull_request = bool(request.query_params.get("create_pr"))
        repo = self.repo(request, write=not pull_request)
        current = self.commit_of(request, repo).files
        answer = []
        for row in (await request.json())["files"]:
            path = row["path"]
            row_out = {
                "path": path,
                "uploadMode": "lfs" if is_lfs(path, row["size"]) else "regular",
                "shouldIgnore": False,
            }
            if path in current:
                row_out["oid"] = current[path].sha256 or current[path].oid
            answer.append(row_out)
        return JSONResponse({"files": answer})

    async def lfs_batch(self, request: Request) -> Response:
        self.repo(request)
        objects = []
        asked = await request.json()
        transfer = "xet" if self.xet and "xet" in asked.get("transfers", ()) else "basic"
        for row in asked["objects"]:
            out: dict[str, Any] = {"oid": row["oid"], "size": row["size"]}
            if row["oid"] not in self.store.objects:
                verify = f"{self.endpoint}/lfs-verify/{row['oid']}"
                out["actions"] = {"upload": {"href": f"{self.cdn}/upload/{row['oid']}"}, "verify": {"href": verify}}
            objects.append(out)
        return JSONResponse({"transfer": transfer, "objects": objects})

    async def lfs_verify(self, request: Request) -> Response:
        payload = await request.json()
        stored = self.store.objects.get(payload["oid"])
        if stored is None or len(stored) != payload["size"]:
            raise Refused(404, "EntryNotFound", "object not stored")
        return JSONResponse({})

    async def commit(self, request: Request) -> Response:
        pull_request = bool(request.query_params.get("create_pr"))
        repo = self.repo(request, write=not pull_request)
        ref = unquote(request.path_params["rev"])
        header, files = {}, dict(self.commit_of(request, repo).files)
        for line in (await request.body()).decode().splitlines():
            row = json.loads(line)
            value = row["value"]
            if row["key"] == "header":
                header = value
            elif row["key"] == "file":
                files[value["path"]] = File.regular(base64.b64decode(value["content"]))
            elif row["key"] == "lfsFile":
                if value["oid"] not in self.store.objects and value["oid"] not in self.store.xet:
                    raise Refused(400, "", f"LFS object {value['oid']} was not uploaded")
                files[value["path"]] = File.lfs(value["oid"], value["size"])
            elif row["key"] == "deletedFile":
                files.pop(value["path"], None)
        parent = header.get("parentCommit")
        if parent and parent != repo.refs.get(ref):
            return JSONResponse({"error": "A commit has happened since. Please refresh and try again."}, 412)
        if pull_request:
            repo.pulls += 1
            repo.refs[f"refs/pr/{repo.pulls}"] = repo.refs[ref]
            ref = f"refs/pr/{repo.pulls}"
        made = repo.add(ref, files, header["summary"])
        answer = {
            "success": True,
            "commitOid": made.oid,
            "commitUrl": f"{self.endpoint}/{repo.id}/commit/{made.oid}",
            "hookOutput": "",
        }
        if pull_request:
            answer["pullRequestUrl"] = f"{self.endpoint}/{repo.id}/discussions/{repo.pulls}"
        return JSONResponse(answer)

    # ---- collections -------------------------------------------------------------------------

    async def collections(self, request: Request) -> Response:
        """The list, with only the first items of each, as on the Hub."""
        user, owner = self.user(request), request.query_params.get("owner", "")
        rows = [self._collection(slug, most=4) for slug in self.store.collections]
        return JSONResponse(
            [r for r in rows if r["owner"] == owner and (not r["private"] or (user is not None and user[0] == owner))]
        )

    async def create_collection(self, request: Request) -> Response:
        payload = await request.json()
        self._may_write(request, payload["namespace"])
        for slug, made in self.store.collections.items():
            if (made["namespace"], made["title"]) == (payload["namespace"], payload["title"]):
                return JSONResponse({"error": "This collection already exists", "slug": slug}, 409)
        number = len(self.store.collections)
        slug = f"{payload['namespace']}/{payload['title'].lower().replace(' ', '-')}-{number:024x}"
        self.store.collections[slug] = {**payload, "items": []}
        return JSONResponse(self._collection(slug))

    async def collection(self, request: Request) -> Response:
        slug = f"{request.path_params['owner']}/{request.path_params['name']}"
        if slug not in self.store.collections:
            raise Refused(404, "", "Collection not found")
        return JSONResponse(self._collection(slug))

    async def add_item(self, request: Request) -> Response:
        slug = f"{request.path_params['owner']}/{request.path_params['name']}"
        self._may_write(request, request.path_params["owner"])
        payload = await request.json()
        item, items = payload["item"], self.store.collections[slug]["items"]
        if item["type"] == "model" and item["id"] not in self.store.repos:
            raise Refused(404, "", "Item not found")
        if any(old["id"] == item["id"] for old in items):
            return JSONResponse({"error": "Item already exists in collection"}, 409)
        items.append({**item, "note": {"text": payload["note"]} if payload.get("note") else None})
        return JSONResponse(self._collection(slug))

    def _may_write(self, request: Request, owner: str) -> None:
        user = self.user(request)
        if user is None:
            raise Refused(401, "", "Invalid username or password.")
        if user != (owner, "write"):
            raise Refused(403, "", f"You don't have the rights to change collections of {owner!r}")

    def _collection(self, slug: str, most: int | None = None) -> dict[str, Any]:
        made = self.store.collections[slug]
        return {
            "slug": slug,
            "title": made["title"],
            "owner": made["namespace"],
            "items": [{"_id": f"{i:024x}", "position": i, **row} for i, row in enumerate(made["items"][:most])],
            "lastUpdated": "2026-01-01T00:00:00.000Z",
            "private": bool(made.get("private")),
            "theme": "green",
            "upvotes": 0,
        } | ({"position": 0} if most is None else {})

    # ---- reading -----------------------------------------------------------------------------

    async def resolve(self, request: Request) -> Response:
        repo = self.repo(request)
        commit, path = self.commit_of(request, repo), unquote(request.path_params["path"])
        file = commit.files.get(path)
        if file is None:
            raise Refused(404, "EntryNotFound", "Entry not found", commit.oid)
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.oid}"', "Accept-Ranges": "bytes"}
        if file.data is not None:
            return Response(file.data, headers=headers, media_type="text/plain")
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
        if self.xet and file.sha256 in self.store.xet:
            kind = "" if repo.id.startswith("spaces/") else "models/"
            route = f"{self.endpoint}/api/{kind}{repo.id}/xet-read-token/{commit.oid}"
            headers |= {"X-Xet-Hash": self.store.xet[file.sha256], "Link": f'<{route}>; rel="xet-auth"'}
        headers["Location"] = f"{self.cdn}/cdn/{file.sha256}?filename={quote(path, safe='')}"
        return Response(status_code=302, headers=headers)

    async def page(self, request: Request) -> Response:
        """What a static Space serves at an address of its own; the genuine one has a host for each Space."""
        path = request.path_params["path"] or "index.html"
        file = self.repo(request).head().files.get(path)
        if file is None:
            raise Refused(404, "EntryNotFound")
        kind = TYPES.get(path.rpartition(".")[2], "application/octet-stream")
        return Response(self.store.content(file), media_type=kind)

    async def xet_token(self, request: Request) -> Response:
        write = "xet-write-token" in request.url.path
        self.repo(request, write=write and request.query_params.get("create_pr") is None)
        headers = {
            "X-Xet-Cas-Url": self.cdn,
            "X-Xet-Access-Token": "xet-write" if write else "xet-read",
            "X-Xet-Token-Expiration": str(int(time.time()) + 3600),
        }
        body = {"casUrl": self.cdn, "exp": int(time.time()) + 3600, "accessToken": headers["X-Xet-Access-Token"]}
        return JSONResponse(body, headers=headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response()


def make_api(store: Store, cas: Cas, endpoint: str, cdn: str, *, xet: bool) -> Starlette:
    """The routes of the Hub."""
    api = Api(store, cas, endpoint, cdn, xet)
    routes = [
        Route("/api/repos/create", api.create, methods=["POST"]),
        Route("/api/repos/delete", api.delete, methods=["DELETE"]),
        Route("/api/validate-yaml", api.validate_yaml, methods=["POST"]),
        Route("/api/whoami-v2", api.whoami),
        Route("/api/collections", api.collections),
        Route("/api/collections", api.create_collection, methods=["POST"]),
        Route("/api/collections/{owner}/{name}", api.collection),
        Route("/api/collections/{owner}/{name}/items", api.add_item, methods=["POST"]),
        Route("/api/models", api.search),
        Route("/lfs-verify/{oid}", api.lfs_verify, methods=["POST"]),
        Route("/spaces/{owner}/{name}/page/{path:path}", api.page),
    ]
    for at, files in reversed(KINDS):  # those of Spaces first: /spaces/OWNER/... could be a model of "spaces"
        routes += _routes_of(api, at, files)
    return Starlette(routes=routes, exception_handlers={Refused: _refused})


def _routes_of(api: Api, at: str, files: str) -> list[Route]:
    """The routes of one kind of repository."""
    return [
        Route(at, api.info),
        Route(f"{at}/revision/{{rev:path}}", api.info),
        Route(f"{at}/tree/{{rev:path}}", api.tree),
        Route(f"{at}/paths-info/{{rev:path}}", api.paths_info, methods=["POST"]),
        Route(f"{at}/refs", api.refs),
        Route(f"{at}/commits/{{rev:path}}", api.commits),
        Route(f"{at}/tag/{{rev:path}}", api.tag, methods=["POST"]),
        Route(f"{at}/branch/{{rev:path}}", api.branch, methods=["POST"]),
        Route(f"{at}/preupload/{{rev:path}}", api.preupload, methods=["POST"]),
        Route(f"{at}/commit/{{rev:path}}", api.commit, methods=["POST"]),
        Route(f"{at}/xet-write-token/{{rev:path}}", api.xet_token),
        Route(f"{at}/xet-read-token/{{rev:path}}", api.xet_token),
        Route(f"{files}.git/info/lfs/objects/batch", api.lfs_batch, methods=["POST"]),
        Route(f"{files}/resolve/{{rev}}/{{path:path}}", api.resolve),
    ]
