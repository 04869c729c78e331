"""`python -m backtest_pipeline`: the commands of `backtest-pipeline`."""

from backtest_pipeline.cli.main import main

if __name__ == "__main__":
    main()
