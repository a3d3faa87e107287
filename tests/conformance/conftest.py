"""The option that writes the table of the book anew."""


def pytest_addoption(parser):
    parser.addoption("--record-conformance", action="store_true", help="write the book's table from these tests")
