"""The laboratory: real data, a training loop, records of runs, sweeps over parameters, and the statistics of them.

from poolnb.lab import RunConfig, run
record = run(RunConfig(dataset="digits", pooler="soft", epochs=3))
"""

from poolnb.lab.analysis import compare
from poolnb.lab.config import RunConfig, config_from_notebook
from poolnb.lab.data import DataError, data_folder
from poolnb.lab.errors import ConfigError, UserError
from poolnb.lab.records import Record, RecordError, load_records, records_frame
from poolnb.lab.statistics import mean_interval, summary_table
from poolnb.lab.training import RunError, run

__all__ = [
    "ConfigError",
    "DataError",
    "Record",
    "RecordError",
    "RunConfig",
    "RunError",
    "UserError",
    "compare",
    "config_from_notebook",
    "data_folder",
    "load_records",
    "mean_interval",
    "records_frame",
    "run",
    "summary_table",
]
