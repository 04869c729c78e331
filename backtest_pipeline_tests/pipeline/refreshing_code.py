"""What a process does that runs a copy of the package: `python -m` with the copy in PYTHONPATH.

`refresh` brings a small market up to date and prints, as JSON, what became of the partitions of
each stage; `check` prints what the sample of today's code finds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from backtest_pipeline.pipeline.replay.replay import todays_sample
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import connect_database
from backtest_pipeline_tests.pipeline.markets import refresh
from backtest_pipeline_tests.pipeline.walking_process import MARKET, PARTITIONS, walk


def main() -> None:
    what, conninfo, root = sys.argv[1:]
    workspace = Workspace(connect_database(conninfo), ArtifactStore(Path(root)))
    if what == "refresh":
        reports = [*refresh(workspace, MARKET, PARTITIONS).values(), walk(workspace)]
        found = {report.stage: report.counts for report in reports}
    else:
        found = [
            {
                "run": one.name,
                "undeclared": one.is_undeclared_change,
                "quarantine": one.quarantine,
                "said": [*one.differences, *one.remarks],
            }
            for one in todays_sample(workspace, 5, seed=0)
        ]
    workspace.database.close()
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
