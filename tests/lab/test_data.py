"""The data sets: real ones as published, and what is said about files that are missing or damaged."""

import socket

import pytest
import torch

from poolnb.lab import data

PUBLISHED = {  # samples in the training and in the test set
    "digits": (1437, 360),
    "mnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
    "clips": (5000, 1000),  # of the first photographs
}


def needs_files(name):
    missing = data.missing_files(name)
    reason = (
        f"{name} is not in {data.data_folder()}: set POOLNB_DATA to a folder that holds {data.DATASETS[name].folder}"
    )
    return pytest.param(name, marks=pytest.mark.skipif(bool(missing), reason=reason))


everywhere = pytest.mark.parametrize("name", [needs_files(name) for name in data.DATASETS])


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """A data folder without files, a machine without a network, and no data set in memory."""

    def no_network(*args, **kwargs):
        raise socket.gaierror("no network in this test")

    monkeypatch.setenv("POOLNB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    data.load.cache_clear()
    yield tmp_path / "data"
    data.load.cache_clear()


@pytest.mark.slow
@everywhere
def test_a_data_set_is_what_was_published(name):
    info, dataset = data.DATASETS[name], data.load(name)
    assert (len(dataset.train), len(dataset.test)) == PUBLISHED[name]
    for samples in (dataset.train, dataset.test):
        channels, *size = info.shape
        assert samples.pixels.dtype == torch.uint8 and samples.pixels.shape[1:] == (*size, channels)
        assert samples.pixels.max() == info.largest
        assert samples.labels.dtype == torch.int64 and set(samples.labels.tolist()) == set(range(data.CLASSES))


@everywhere
def test_batches_are_scaled_and_channels_last(name):
    samples, info = data.load(name).test, data.DATASETS[name]
    images, labels = samples.batch(torch.tensor([5, 3, 8]))
    assert images.shape == (3, *info.shape) and images.dtype == torch.float32
    layout = torch.channels_last if images.dim() == 4 else torch.channels_last_3d
    assert images.is_contiguous(memory_format=layout)
    assert images.min() >= 0 and images.max() <= 1
    expected = samples.pixels[3].movedim(-1, 0).double() / info.largest
    torch.testing.assert_close(images[1].double(), expected, rtol=1e-6, atol=0)
    assert labels.tolist() == samples.labels[[5, 3, 8]].tolist()


@pytest.mark.skipif(bool(data.missing_files("mnist")), reason="MNIST is not there: set POOLNB_DATA")
def test_mnist_labels_belong_to_their_images():
    """The first test image is a seven: dark at the top bar, empty in the lower left corner."""
    test = data.load("mnist").test
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert test.pixels[0, 8, 8:20].float().mean() > 100 and test.pixels[0, 20:, :10].max() == 0


@pytest.mark.skipif(bool(data.missing_files("cifar10")), reason="CIFAR-10 is not there: set POOLNB_DATA")
def test_cifar_has_a_thousand_test_images_of_each_class():
    assert data.load("cifar10").test.labels.bincount().tolist() == [1000] * 10


def test_the_split_is_fixed_and_disjoint():
    train = data.load("digits").train
    marked = data.Samples(train.pixels, torch.arange(len(train)), train.largest)
    training, held_out = data.split(marked, 0.1)
    assert len(held_out) == round(0.1 * len(train))
    assert sorted([*training.labels.tolist(), *held_out.labels.tolist()]) == list(range(len(train)))
    again = data.split(marked, 0.1, limit=100)
    assert again[1].labels.tolist() == held_out.labels.tolist()
    assert set(again[0].labels.tolist()) < set(training.labels.tolist()) and len(again[0]) == 100
    smaller = data.split(marked, 0.1, limit=50)[0].labels.tolist()
    assert set(smaller) < set(again[0].labels.tolist())


def test_without_validation_all_samples_train():
    train = data.load("digits").train
    training, held_out = data.split(train, 0.0)
    assert (len(training), len(held_out)) == (len(train), 0)


def test_a_validation_share_that_leaves_nothing_is_refused():
    train = data.load("digits").train
    with pytest.raises(data.DataError, match="validation=0.0001 leaves 0 of 1437"):
        data.split(train, 0.0001)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_missing_files_are_named_with_the_place_and_the_way_out(name, empty_folder):
    info = data.DATASETS[name]
    with pytest.raises(data.DataError) as caught:
        data.load(name)
    message = str(caught.value)
    for part in (info.title, info.files[0][0], info.files[-1][0], str(empty_folder / info.folder), "POOLNB_DATA"):
        assert part in message
    assert "\n" not in message
    assert not empty_folder.exists() and not list(empty_folder.parent.iterdir()), "something was left behind"


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_damaged_file_is_named(name, empty_folder):
    info = data.DATASETS[name]
    (empty_folder / info.folder).mkdir(parents=True)
    for file, _ in info.files:
        (empty_folder / info.folder / file).write_bytes(b"not what it should be")
    damaged = empty_folder / info.folder / info.files[0][0]
    with pytest.raises(data.DataError, match="is damaged .*POOLNB_DATA") as caught:
        data.load(name)
    assert str(damaged) in str(caught.value)
    assert damaged.read_bytes() == b"not what it should be", "a file of the user's was touched"


def test_a_download_moves_whole_files_into_place_and_keeps_those_that_are_there(empty_folder, monkeypatch):
    from torchvision import datasets

    info = data.DATASETS["mnist"]
    here = empty_folder / info.folder
    here.mkdir(parents=True)
    (here / info.files[0][0]).write_text("mine")

    def fetch(root, download):
        from pathlib import Path

        folder = Path(root) / info.folder
        folder.mkdir(parents=True)
        for file, _ in info.files:
            (folder / file).write_text("fetched")
        (folder / "archive.gz").write_text("not needed any more")

    monkeypatch.setattr(datasets, "MNIST", fetch)
    data._download("mnist")
    assert {path.name: path.read_text() for path in here.iterdir()} == {
        file: "fetched" if number else "mine" for number, (file, _) in enumerate(info.files)
    }
    assert [path.name for path in empty_folder.iterdir()] == ["MNIST"]
