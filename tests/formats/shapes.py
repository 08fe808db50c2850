"""Archives put together by hand: the shapes of tools Debian does not have, and random ones.

Builds on rootfs/image_archive.py, which writes what docker and OCI tools write.
"""

import base64
import gzip
import io
import json
import subprocess
import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "rootfs"))
import image_archive as archive  # noqa: E402 (the folder must be on the path first)
from image_archive import MEDIA_CONFIG, MEDIA_INDEX, MEDIA_LAYER, MEDIA_MANIFEST  # noqa: E402

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
OWN = {"os": "linux", "architecture": archive.OWN_ARCHITECTURE}


def gzipped(data):
    return gzip.compress(data, 6, mtime=0)


def zstd(data, *options):
    return subprocess.run(["zstd", "-q", "-c", *options], input=data, stdout=subprocess.PIPE,
                          check=True).stdout


def skippable_frame(data, number=0):
    """A frame every decoder must step over; zstd:chunked keeps its table of contents in one."""
    return bytes([0x50 + number]) + b"\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


def zstd_chunked(tar, pieces=3):
    """What `zstd:chunked` writes: a frame per chunk, then the table and the footer, skippable."""
    size = -(-len(tar) // pieces)
    frames = b"".join(zstd(tar[at:at + size]) for at in range(0, len(tar), size))
    table = zstd(json.dumps({"version": 1, "entries": []}).encode())
    footer = b"".join(n.to_bytes(8, "little") for n in (len(frames) + 8, len(table), 30, 1))
    return frames + skippable_frame(table) + skippable_frame(footer + b"GNUlInUx")


def gzip_member(data, extra=b"", level=6):
    """One member with an "extra field" in its header, which Python's own writer can not make."""
    body = zlib.compressobj(level, zlib.DEFLATED, -15)
    raw = body.compress(data) + body.flush()
    flags, field = (4, len(extra).to_bytes(2, "little") + extra) if extra else (0, b"")
    head = b"\x1f\x8b\x08" + bytes([flags]) + b"\0\0\0\0" + b"\0\xff" + field
    return head + raw + zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xffffffff).to_bytes(
        4, "little")


def estargz(entries):
    """(tar bytes, blob): a gzip member per file, a table of contents last, and its footer."""
    landmark = archive.Entry(".no.prefetch.landmark", content=b"\x0f")
    toc = json.dumps({"version": 1, "entries": [{"name": e.path, "type": "reg"} for e in entries]})
    table = archive.Entry("stargz.index.json", content=toc.encode())
    tar, blob = b"", b""
    for entry in [landmark, *entries, table]:
        piece = archive.layer([entry])
        piece = piece[:piece.rindex(piece.rstrip(b"\0")[-1:]) + 1]  # without its end marks
        piece += b"\0" * (-len(piece) % 512)
        tar += piece
        if entry is table:
            offset = len(blob)
            piece += b"\0" * 1024
            tar += b"\0" * 1024
        blob += gzip_member(piece)
    subfield = b"SG" + (22).to_bytes(2, "little") + b"%016xSTARGZ" % offset
    return tar, blob + gzip_member(b"", subfield, 0)


class Layout:
    """An OCI layout in memory: blobs by digest, and the descriptors of its index."""

    def __init__(self):
        self.blobs = {}
        self.manifests = []

    def blob(self, media_type, data, **more):
        """Stores bytes and returns their descriptor."""
        digest = archive.sha(data)
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(data), **more}

    def document(self, media_type, document, **more):
        return self.blob(media_type, archive.as_json(document), **more)

    def manifest(self, image, pack=None, layer_type=MEDIA_LAYER, **more):
        """`pack` turns a layer's tar into its blob; `layer_type` is what the manifest calls it."""
        layers = [self.blob(layer_type, pack(tar) if pack else tar) for tar in image.layers]
        config = self.blob(MEDIA_CONFIG, image.config_bytes())
        return self.document(MEDIA_MANIFEST, {
            "schemaVersion": 2, "mediaType": MEDIA_MANIFEST, "config": config, "layers": layers},
            **more)

    def index(self, manifests, **more):
        return self.document(MEDIA_INDEX, {
            "schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": manifests}, **more)

    def attestation(self, subject):
        """What buildkit adds about an image: a manifest for no platform with an in-toto layer."""
        statement = self.blob("application/vnd.in-toto+json", b'{"_type":"statement"}')
        config = self.document(MEDIA_CONFIG, {
            "architecture": "unknown", "os": "unknown", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [statement["digest"]]}})
        return self.document(MEDIA_MANIFEST, {
            "schemaVersion": 2, "mediaType": MEDIA_MANIFEST, "config": config,
            "layers": [statement]}, platform={"architecture": "unknown", "os": "unknown"},
            annotations={"vnd.docker.reference.digest": subject["digest"],
                         "vnd.docker.reference.type": "attestation-manifest"})

    def elsewhere(self, architecture, variant=""):
        """A descriptor whose blob is not there: an index saved for one platform alone."""
        platform = {"architecture": architecture, "os": "linux"}
        if variant:
            platform["variant"] = variant
        return {"mediaType": MEDIA_MANIFEST, "digest": "sha256:" + archive.sha(
            f"{architecture}{variant}".encode()), "size": 500, "platform": platform}

    def members(self, index=None):
        index = index or archive.as_json({
            "schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": self.manifests})
        return [("oci-layout", LAYOUT), ("index.json", index), ("blobs/", None),
                ("blobs/sha256/", None)] + [("blobs/sha256/" + digest, data)
                                            for digest, data in sorted(self.blobs.items())]

    def tar(self, index=None, more=()):
        return archive.pack(self.members(index) + list(more))

    def write(self, folder):
        """As a directory, for tools that want one."""
        for name, data in self.members():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if data is not None and not path.exists():
                path.write_bytes(data)


def named(name):
    return {"annotations": {"io.containerd.image.name": "docker.io/library/" + name,
                            "org.opencontainers.image.ref.name": name.rsplit(":", 1)[1]}}


def oci(image, pack=None, layer_type=MEDIA_LAYER):
    layout = Layout()
    notes = named(image.tags[0]) if image.tags else {}
    layout.manifests = [layout.manifest(image, pack, layer_type, platform=OWN, **notes)]
    return layout


def saved_entry(config_name, image, layer_names, tags="own"):
    return {"Config": config_name, "RepoTags": image.tags if tags == "own" else tags,
            "Layers": layer_names}


def kaniko(image):
    """kaniko, ko, crane and bazel: the config is called sha256:..., layers are gzip."""
    config = image.config_bytes()
    blobs = [gzipped(tar) for tar in image.layers]
    names = [archive.sha(blob) + ".tar.gz" for blob in blobs]
    config_name = "sha256:" + archive.sha(config)
    members = dict(zip(names, blobs))
    return archive.pack([(config_name, config), *members.items(),
                         ("manifest.json", archive.as_json(
                             [saved_entry(config_name, image, names)]))])


def skopeo_like(image, pack=None):
    """<diffid>.tar and a symlink to it per layer, as containers/image writes docker archives."""
    members, names, first = [], [], set()
    for number, tar in enumerate(image.layers):
        blob = archive.sha(tar) + ".tar"
        if blob not in first:
            members.append((blob, pack(tar) if pack else tar))
            first.add(blob)
        folder = archive.sha(f"{number}".encode())
        members.append((folder + "/layer.tar", "symlink:../" + blob))
        names.append(folder + "/layer.tar")
    config = image.config_bytes()
    members.append((archive.sha(config) + ".json", config))
    return archive.pack(members + [("manifest.json", archive.as_json(
        [saved_entry(archive.sha(config) + ".json", image, names)]))])


def buildkit(image):
    """A named index of an index with one image, its attestation, and platforms left out."""
    layout = Layout()
    own = layout.manifest(image, gzipped, MEDIA_LAYER + "+gzip", platform=OWN)
    inner = layout.index([layout.elsewhere("s390x"), layout.attestation(own), own,
                          layout.elsewhere("arm", "v5")])
    layout.manifests = [{**layout.index([inner]), **named(image.tags[0])}]
    return layout.tar()


def containerd_save(image):
    """The same beside docker's manifest.json, as the containerd image store saves."""
    layout = oci(image, gzipped, DOCKER_LAYER)
    layout.manifests = [{**layout.index([layout.manifests[0], layout.elsewhere("ppc64le")]),
                         **named(image.tags[0])}]
    names = ["blobs/sha256/" + archive.sha(gzipped(tar)) for tar in image.layers]
    config = "blobs/sha256/" + archive.sha(image.config_bytes())
    return layout.tar(more=[("manifest.json", archive.as_json(
        [saved_entry(config, image, names)]))])


def docker25_nulls(image):
    """docker save 25 of an untagged image: null where lists are expected."""
    layout = oci(image)
    names = ["blobs/sha256/" + archive.sha(tar) for tar in image.layers]
    config = "blobs/sha256/" + archive.sha(image.config_bytes())
    index = b'{"schemaVersion":2,"mediaType":"%s","manifests":null}' % MEDIA_INDEX.encode()
    return layout.tar(index, [
        ("manifest.json", archive.as_json([saved_entry(config, image, names, None)]))])


def with_nulls(image):
    """Every optional field of every document null, instead of absent."""
    nothing = dict.fromkeys(("Entrypoint", "Cmd", "Env", "User", "WorkingDir", "Labels", "Volumes",
                             "ExposedPorts", "StopSignal", "Healthcheck", "Shell", "OnBuild"))
    config = json.loads(image.config_bytes())
    config.update(config=nothing, variant=None, history=None, created=None, container_config=None)
    layout = Layout()
    layers = [layout.blob(MEDIA_LAYER, tar, annotations=None, urls=None, platform=None)
              for tar in image.layers]
    manifest = layout.document(MEDIA_MANIFEST, {
        "schemaVersion": 2, "mediaType": None, "annotations": None, "subject": None,
        "manifests": None, "layers": layers,
        "config": layout.document(MEDIA_CONFIG, config, annotations=None)},
        platform=None, annotations=None)
    index = archive.as_json({"schemaVersion": 2, "mediaType": None, "annotations": None,
                             "manifests": [manifest], "layers": None, "config": None})
    return layout.tar(index)


def inline(data):
    """A descriptor's `data` field: the blob itself, in base64."""
    return base64.b64encode(data).decode()


def tar_of_folder(folder):
    """As `tar -C folder -c .`: every name begins with "./"."""
    import tarfile  # pylint: disable=import-outside-toplevel
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(folder, ".")
    return out.getvalue()
