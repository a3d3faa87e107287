"""The real data sets: digits (needs no file), MNIST and CIFAR-10 (the original files, read by torchvision), and clips
cut from CIFAR-10.

Files are looked for in the folder that the environment variable POOLNB_DATA names; without it, in `poolnb/data` of the
user's cache directory. Missing files are downloaded there, once.
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from poolnb.lab.clips import film
from poolnb.lab.errors import UserError
from poolnb.lab.provenance import note_data
from poolnb.lab.samples import Samples

CLASSES = 10


class DataError(UserError, RuntimeError):
    """A data file is missing or damaged."""


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set without reading it."""

    title: str
    shape: tuple[int, ...]  # channels, height, width; of clips: channels, frames, height, width
    largest: int  # the pixel value that becomes 1.0
    folder: str = ""  # below the data folder
    files: tuple[tuple[str, str], ...] = ()  # name and md5


_CIFAR10_FILES = (
    ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
    ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
    ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
    ("data_batch_4", "634d18415352ddfa80567beed471001a"),
    ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
    ("test_batch", "40351d587109b95175f43aff81a1287e"),
    ("batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
)
DATASETS = {
    # scikit-learn's copy of the UCI test set. At 8 x 8 three 2 x 2 pools leave one position: the recipe fits as it is.
    "digits": DatasetInfo("scikit-learn's digits", (1, 8, 8), 16),
    "mnist": DatasetInfo(
        "MNIST",
        (1, 28, 28),
        255,
        "MNIST/raw",
        (
            ("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb"),
            ("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624"),
            ("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea"),
            ("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637"),
        ),
    ),
    "cifar10": DatasetInfo(
        "CIFAR-10",
        (3, 32, 32),
        255,
        "cifar-10-batches-py",
        _CIFAR10_FILES,
    ),
    # Short films of real photographs, for pooling in 3-D: see clips.py.
    "clips": DatasetInfo("clips of CIFAR-10", (3, 8, 16, 16), 255, "cifar-10-batches-py", _CIFAR10_FILES),
}


def data_folder() -> Path:
    """The folder of the data files: POOLNB_DATA, or `poolnb/data` in the user's cache directory."""
    if named := os.environ.get("POOLNB_DATA"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "poolnb" / "data"


def missing_files(name: str) -> list[str]:
    """The files of the data set `name` that are not in the data folder."""
    info = DATASETS[name]
    folder = data_folder() / info.folder
    return [file for file, _ in info.files if not (folder / file).is_file()]


@dataclass(frozen=True)
class Dataset:
    """A data set as it is published: its training and its test samples, and a hash of both."""

    train: Samples
    test: Samples
    sha256: str


@functools.lru_cache(maxsize=2)
def load(name: str) -> Dataset:
    """The data set `name`, on the CPU. Raises `DataError` if a file is missing and cannot be had, or is damaged."""
    info = DATASETS[name]
    if name == "clips":
        whole = load("cifar10")
        train, test = film(whole.train, 5000), film(whole.test, 1000)
    elif info.files:
        _ensure_files(name)
        train, test = (_from_torchvision(name, train=part) for part in (True, False))
    else:
        train, test = _digits()
    digest = hashlib.sha256()
    for samples in (train, test):
        digest.update(samples.pixels.numpy().tobytes())
        digest.update(samples.labels.numpy().tobytes())
    note_data(name, digest.hexdigest())
    return Dataset(train, test, digest.hexdigest())


def split(train: Samples, validation: float, limit: int | None = None) -> tuple[Samples, Samples]:
    """Training and validation samples, without overlap.

    The validation samples are a fixed draw, the same for every seed, pooler and limit: runs are compared on one split.
    `limit` caps the training samples; a smaller limit's samples are among a larger one's.
    """
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(20_130_116))
    held_out = round(validation * len(train))
    if validation and not 0 < held_out < len(train):
        raise DataError(f"validation={validation} leaves {held_out} of {len(train)} samples for validation")
    chosen = order[held_out:][:limit]
    return train.subset(chosen.sort().values), train.subset(order[:held_out].sort().values)


def _digits() -> tuple[Samples, Samples]:
    """Every fifth digit is a test digit: scikit-learn ships this set without a split of its own."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    pixels = torch.as_tensor(bunch.images).to(torch.uint8).unsqueeze(-1)
    labels = torch.as_tensor(bunch.target).to(torch.int64)
    is_test = torch.arange(len(labels)) % 5 == 0
    everything = Samples(pixels, labels, DATASETS["digits"].largest)
    return everything.subset((~is_test).nonzero().squeeze(1)), everything.subset(is_test.nonzero().squeeze(1))


def _from_torchvision(name: str, *, train: bool, root: Path | None = None) -> Samples:
    from torchvision import datasets

    info = DATASETS[name]
    reader = {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10}[name]
    read: Any = reader(root=str(root or data_folder()), train=train)
    pixels = torch.as_tensor(read.data)
    labels = torch.as_tensor(read.targets, dtype=torch.int64)
    pixels = pixels.reshape(len(pixels), *info.shape[1:], info.shape[0])
    return Samples(pixels.contiguous(), labels, info.largest)  # torchvision's CIFAR-10 is a transposed view


def _ensure_files(name: str) -> None:
    """Return when all files are there and whole; otherwise fetch the missing ones or raise `DataError`."""
    info = DATASETS[name]
    missing = missing_files(name)
    if missing:
        folder = data_folder() / info.folder
        try:
            _download(name)
        except Exception as error:  # whatever torchvision, urllib or the file system raise: the files are not there
            raise DataError(
                f"{info.title}: {', '.join(missing)} not found in {folder}, and the download failed "
                f"({_first_line(error)}). Put the files there, or set POOLNB_DATA to a folder that holds "
                f"{info.folder}/{missing[0]} and the others."
            ) from None
    for file, md5 in info.files:
        path = data_folder() / info.folder / file
        if _md5(path) != md5:
            raise DataError(
                f"{info.title}: {path} is damaged (its md5 sum is not {md5}). "
                "Delete it to have it downloaded again, or set POOLNB_DATA to another folder."
            )


def _download(name: str) -> None:
    """Fetch a data set through torchvision into a temporary folder, then move its files into place one by one."""
    from torchvision import datasets

    info = DATASETS[name]
    root = data_folder().absolute()
    target = root / info.folder
    # Beside the data folder if that does not exist yet: a failed download must not leave an empty one.
    nearest = next(folder for folder in (root, *root.parents) if folder.is_dir())
    with tempfile.TemporaryDirectory(dir=nearest, prefix=".poolnb-download-") as temporary, _socket_timeout(30):
        {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10}[name](root=temporary, download=True)
        target.mkdir(parents=True, exist_ok=True)
        for file, _ in info.files:
            if not (target / file).is_file():
                os.replace(Path(temporary) / info.folder / file, target / file)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
