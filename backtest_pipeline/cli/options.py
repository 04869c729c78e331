"""Commands whose options are the fields of a spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, get_type_hints

import typer

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.symbols import key_of
from backtest_pipeline.pipeline.spec_options import Option, options_of, spec_from
from backtest_pipeline.pipeline.specs import SpecModel

S = TypeVar("S", bound=SpecModel)


def _as_key(symbol: str | None) -> str | None:
    return symbol and key_of(symbol)


def _as_timeframe(name: str | None) -> str | None:
    from backtest_pipeline.market.timeframes import timeframe

    return None if name is None else timeframe(name).name


def _as_timeframes(names: str) -> str:
    from backtest_pipeline.market.timeframes import timeframe

    return ",".join(timeframe(name).name for name in split(names) or ())


def _as_source(path: Path | None) -> Path | None:
    if path is not None:
        from backtest_pipeline.sources.choose import require_source

        require_source(str(path))
    return path


def _as_cursor(cursor: str | None) -> str | None:
    if cursor is not None:
        from backtest_pipeline.storage.postgres.pages import newest_first_key

        newest_first_key(cursor)
    return cursor


Asset = Annotated[
    str | None, typer.Option(help="Symbol, for example BTC or BTC/USDT.", callback=_as_key)
]
Start = Annotated[str | None, typer.Option(help="First UTC day, YYYY-MM-DD.")]
End = Annotated[str | None, typer.Option(help="End, exclusive: the UTC day after the last.")]
Bars = Annotated[
    Path | None,
    typer.Option(
        "--bars",
        help="File or folder of bars, or binance:1h; default: BACKTEST_BARS, else the sample "
        "market.",
        callback=_as_source,
    ),
]
FullRebuild = Annotated[
    bool, typer.Option("--full-rebuild", help="Recompute everything, changed or not.")
]
Params = Annotated[
    list[str] | None,
    typer.Option("--param", help="Strategy parameter, for example fast=12; repeatable."),
]
After = Annotated[
    str | None,
    typer.Option(
        "--after", help="Next page: the cursor that the last page printed.", callback=_as_cursor
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


_TF = typer.Option("--tf", help="Timeframe, for example 1D.", callback=_as_timeframe)
Timeframe = Annotated[str, _TF]
AnyTimeframe = Annotated[str | None, _TF]


def _names(option: str, what: str, otherwise: str = "all", callback: Any = None) -> Any:
    """An option that takes names separated by commas, for `split`."""
    described = f"{what}, separated by commas; default: {otherwise}."
    return typer.Option(f"--{option}", help=described, callback=callback)


Assets = Annotated[str, _names("assets", "Symbols")]
SampledAssets = Annotated[str, _names("assets", "Symbols", "a sample")]
Timeframes = Annotated[str, _names("timeframes", "Timeframes", callback=_as_timeframes)]
Signal = Annotated[
    str | None,
    typer.Option(help="Short for --strategy or --preset, for example rsi or ema_9_21."),
]

RANGES = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Context settings of a command that also takes one option per strategy parameter."""


@dataclass(frozen=True)
class SpecOptions(Generic[S]):
    """The values of a spec's options; `spec` validates them when the command needs the spec.

    Attributes:
        kind: class of the spec.
        values: as typed, by option.
    """

    kind: type[S]
    values: Mapping[str, Any]

    def updated(self, **values: Any) -> SpecOptions[S]:
        """A copy with these values added or replaced."""
        return replace(self, values={**self.values, **values})

    def spec(self) -> S:
        """The spec; errors as `spec_from`."""
        return spec_from(self.kind, self.values)


def of_spec(
    kind: type[SpecModel], leave_out: Sequence[str] = (), **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command: its parameter `options` becomes one option per field of the spec.

    Args:
        kind: class of the spec.
        leave_out: fields without an option.
        defaults: option defaults that differ from the spec's.
    """

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        options = [
            replace(option, default=defaults.get(option.name, option.default))
            for option in options_of(kind, leave_out)
        ]

        @wraps(command)
        def assembled(**arguments: Any) -> None:
            values = {option.name: arguments.pop(option.name) for option in options}
            command(**arguments, options=SpecOptions(kind, values))

        parameters: list[Parameter] = []
        for name, own in signature(command).parameters.items():
            if name == "options":
                parameters += [_parameter(option) for option in options]
            else:
                parameters.append(own.replace(annotation=hints[name]))
        parameters.sort(key=lambda parameter: parameter.default is not Parameter.empty)
        vars(assembled)["__signature__"] = Signature(parameters)
        return assembled

    return decorated


def _parameter(option: Option) -> Parameter:
    flags = [f"--{name.replace('_', '-')}" for name in (option.name, option.also) if name]
    kind: Any = list[str] if option.kind is list else option.kind
    if option.kind is bool:
        flags[0] = f"{flags[0]}/--no-{flags[0][2:]}"
    if not option.required and option.default is None:
        kind = kind | None
    declared = typer.Option(*flags, help=f"{option.help[:1].upper()}{option.help[1:]}.")
    return Parameter(
        option.name,
        Parameter.KEYWORD_ONLY,
        default=Parameter.empty if option.required else option.default,
        annotation=Annotated[kind, declared],
    )


def with_ranges(options: SpecOptions[S], arguments: Sequence[str]) -> SpecOptions[S]:
    """Add the strategy parameters that were typed as options: `--fast 5:50:5 --slow=20,50`.

    Raises:
        InvalidInput: for an argument that is not an option with values.
    """
    param: list[str] = list(options.values.get("param") or ())
    rest = list(arguments)
    while rest:
        option, equals, text = rest.pop(0).partition("=")
        if not option.startswith("--") or len(option) < 3:
            raise InvalidInput(f"{option!r} is not a parameter; write it as --fast 5:50:5")
        if not equals:
            if not rest:
                raise InvalidInput(f"{option} has no values; write it as {option} 5:50:5")
            text = rest.pop(0)
        param.append(f"{option[2:]}={text}")
    return options.updated(param=param or None)


def split_symbols(names: str) -> list[str] | None:
    """Keys of symbols that are separated by commas; None where there are none."""
    found = split(names)
    return found and [key_of(symbol) for symbol in found]


def split(names: str) -> list[str] | None:
    """The comma-separated names; None if there are none."""
    return [name.strip() for name in names.split(",") if name.strip()] or None
