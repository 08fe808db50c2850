"""Writes image archives as `docker save` and OCI tools do, with the standard library alone.

An image is a list of layers (tar bytes) and a config; the same input gives the same bytes.
Three layouts: docker (>= 25: blobs/ + manifest.json), legacy (<id>/layer.tar, 1.10 to 24), oci.
"""

import gzip
import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass, field

EPOCH = "1970-01-01T00:00:00Z"
MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_LAYER = "application/vnd.oci.image.layer.v1.tar"
KINDS = {"file": tarfile.REGTYPE, "dir": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE,
         "hardlink": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE, "char": tarfile.CHRTYPE}
# This machine, as images name it.
OWN_ARCHITECTURE = {"aarch64": "arm64", "armv7l": "arm"}.get(platform.machine(), "amd64")


@dataclass
class Entry:
    """One member of a layer. Whiteouts are files named .wh.NAME, as in the image spec."""
    path: str
    kind: str = "file"
    content: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    link: str = ""
    pax: dict = field(default_factory=dict)


@dataclass
class Image:
    """tags like "hello:1"; config is the "config" object (Entrypoint, Env, User, ...)."""
    tags: list
    layers: list
    config: dict
    architecture: str = OWN_ARCHITECTURE
    variant: str = ""

    def config_bytes(self):
        document = {
            "architecture": self.architecture, "os": "linux", "created": EPOCH,
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + sha(b) for b in self.layers]},
            "history": [{"created": EPOCH, "created_by": "pulga make-image"} for _ in self.layers],
        }
        if self.variant:
            document["variant"] = self.variant
        return as_json(document)


def sha(data):
    return hashlib.sha256(data).hexdigest()


def as_json(document):
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def layer(entries):
    """The tar of one layer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.path)
            info.type = KINDS[entry.kind]
            info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
            info.linkname = entry.link
            info.pax_headers = dict(entry.pax)
            info.size = len(entry.content) if entry.kind == "file" else 0
            tar.addfile(info, io.BytesIO(entry.content))
    return out.getvalue()


def pack(members):
    """An outer archive from (name, bytes) or (name, "symlink:target") or (name, None) = folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                data = b""
            elif isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data.removeprefix("symlink:")
                data = b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def oci_documents(image, gzip_layers=False):
    """(blobs by digest, manifest descriptor with platform)."""
    config = image.config_bytes()
    blobs = {sha(config): config}
    descriptors = []
    for plain in image.layers:
        data = gzip.compress(plain, mtime=0) if gzip_layers else plain
        blobs[sha(data)] = data
        descriptors.append({"mediaType": MEDIA_LAYER + ("+gzip" if gzip_layers else ""),
                            "digest": "sha256:" + sha(data), "size": len(data)})
    manifest = as_json({
        "schemaVersion": 2, "mediaType": MEDIA_MANIFEST, "layers": descriptors,
        "config": {"mediaType": MEDIA_CONFIG, "digest": "sha256:" + sha(config),
                   "size": len(config)}})
    blobs[sha(manifest)] = manifest
    platform = {"architecture": image.architecture, "os": "linux"}
    if image.variant:
        platform["variant"] = image.variant
    return blobs, {"mediaType": MEDIA_MANIFEST, "digest": "sha256:" + sha(manifest),
                   "size": len(manifest), "platform": platform}, descriptors


def repositories(images, layer_id):
    names = {}
    for image in images:
        for tag in image.tags:
            name, version = tag.rsplit(":", 1)
            names.setdefault(name, {})[version] = layer_id(image)
    return as_json(names)


def oci_members(images, gzip_layers):
    blobs, descriptors = {}, []
    for image in images:
        more, descriptor, _ = oci_documents(image, gzip_layers)
        blobs.update(more)
        for tag in image.tags or [None]:
            notes = {} if tag is None else {"annotations": {
                "io.containerd.image.name": "docker.io/library/" + tag,
                "org.opencontainers.image.ref.name": tag.rsplit(":", 1)[1]}}
            descriptors.append({**descriptor, **notes})
    index = as_json({"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": descriptors})
    members = [("blobs/", None), ("blobs/sha256/", None)]
    members += [("blobs/sha256/" + digest, blobs[digest]) for digest in sorted(blobs)]
    return members + [("index.json", index)]


def docker_archive(images, gzip_layers=False):
    """What Docker 25 and later save: an OCI layout with manifest.json beside it."""
    manifest = []
    for image in images:
        _, _, descriptors = oci_documents(image, gzip_layers)
        manifest.append({
            "Config": "blobs/sha256/" + sha(image.config_bytes()), "RepoTags": image.tags or None,
            "Layers": ["blobs/sha256/" + d["digest"].removeprefix("sha256:") for d in descriptors],
            "LayerSources": {d["digest"]: d for d in descriptors}})
    members = oci_members(images, gzip_layers)
    members += [("manifest.json", as_json(manifest)),
                ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')]
    if any(image.tags for image in images):
        members.append(("repositories", repositories(
            images, lambda image: sha(image.layers[-1]) if image.layers else "")))
    return pack(members)


def oci_archive(images, gzip_layers=True):
    return pack([("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')]
                + oci_members(images, gzip_layers))


def legacy_ids(image):
    """One folder per layer; its id depends on all layers below it, as Docker's v1 ids did."""
    ids, chain = [], ""
    for plain in image.layers:
        chain = sha((chain + sha(plain)).encode())
        ids.append(chain)
    return ids


def legacy_archive(images):
    """What Docker 1.10 to 24 save; a layer that repeats is a symlink to its first copy."""
    members, manifest, first_copy = {}, [], {}
    for image in images:
        ids = legacy_ids(image)
        for number, (layer_id, plain) in enumerate(zip(ids, image.layers)):
            about = {"id": layer_id, "created": EPOCH, "os": "linux"}
            if number:
                about["parent"] = ids[number - 1]
            keeper = first_copy.setdefault(sha(plain), layer_id)
            members[layer_id + "/"] = None
            members[layer_id + "/VERSION"] = b"1.0"
            members[layer_id + "/json"] = as_json(about)
            members[layer_id + "/layer.tar"] = (
                plain if keeper == layer_id else "symlink:../" + keeper + "/layer.tar")
        config = image.config_bytes()
        members[sha(config) + ".json"] = config
        manifest.append({"Config": sha(config) + ".json", "RepoTags": image.tags or None,
                         "Layers": [layer_id + "/layer.tar" for layer_id in ids]})
    members["manifest.json"] = as_json(manifest)
    if any(image.tags for image in images):
        members["repositories"] = repositories(
            images, lambda image: legacy_ids(image)[-1] if image.layers else "")
    return pack(list(members.items()))
