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


Asset = Annotated[
    str | None, typer.Option(help="Symbol, for example BTC or BTC/USDT.", callback=_as_key)
]
Start = Annotated[str | None, typer.Option(help="First UTC day, YYYY-MM-DD.")]
End = Annotated[str | None, typer.Option(help="Day after the last, YYYY-MM-DD.")]
Bars = Annotated[
    Path | None,
    typer.Option(
        "--bars",
        help="File or folder of bars, or binance:1h; else BACKTEST_BARS or the sample market.",
    ),
]
FullRebuild = Annotated[
    bool, typer.Option("--full-rebuild", help="Compute also what has not changed.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Signal = Annotated[
    str | None,
    typer.Option(help="Short for --strategy or --preset, for example rsi or ema_9_21."),
]

RANGES = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Of a command that takes options with ranges which no field declares."""


@dataclass(frozen=True)
class Typed(Generic[S]):
    """What was typed of a spec, by option; the spec is made where the command wants it."""

    kind: type[S]
    options: Mapping[str, Any]

    def adding(self, **options: Any) -> Typed[S]:
        """The same with these options besides, or in the place of those that were typed."""
        return replace(self, options={**self.options, **options})

    def spec(self) -> S:
        """The spec; errors as `spec_from`."""
        return spec_from(self.kind, self.options)


def of_spec(
    kind: type[SpecModel], leave_out: Sequence[str] = (), **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command with an option for each field of a spec, in the place of its parameter `typed`.

    Args:
        kind: the spec.
        leave_out: fields that are no options.
        defaults: of options, where the command has others than the spec.
    """

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        options = [
            replace(option, default=defaults.get(option.name, option.default))
            for option in options_of(kind, leave_out)
        ]

        @wraps(command)
        def assembled(**given: Any) -> None:
            typed = {option.name: given.pop(option.name) for option in options}
            command(**given, typed=Typed(kind, typed))

        shown: list[Parameter] = []
        for name, own in signature(command).parameters.items():
            if name == "typed":
                shown += [_parameter(option) for option in options]
            else:
                shown.append(own.replace(annotation=hints[name]))
        shown.sort(key=lambda parameter: parameter.default is not Parameter.empty)
        vars(assembled)["__signature__"] = Signature(shown)
        return assembled

    return decorated


def _parameter(option: Option) -> Parameter:
    words = [f"--{name.replace('_', '-')}" for name in (option.name, option.also) if name]
    kind: Any = list[str] if option.kind is list else option.kind
    if option.kind is bool:
        words[0] = f"{words[0]}/--no-{words[0][2:]}"
    if not option.required and option.default is None:
        kind = kind | None
    told = typer.Option(*words, help=f"{option.help[:1].upper()}{option.help[1:]}.")
    return Parameter(
        option.name,
        Parameter.KEYWORD_ONLY,
        default=Parameter.empty if option.required else option.default,
        annotation=Annotated[kind, told],
    )


def with_ranges(typed: Typed[S], arguments: Sequence[str]) -> Typed[S]:
    """The same with parameters from options of their own: `--fast 5:50:5 --slow=20,50`.

    Raises:
        InvalidInput: for what is not an option with a range.
    """
    param: list[str] = list(typed.options.get("param") or ())
    waiting = list(arguments)
    while waiting:
        option, equals, text = waiting.pop(0).partition("=")
        if not option.startswith("--") or len(option) < 3:
            raise InvalidInput(f"{option!r} is not a parameter; write it as --fast 5:50:5")
        if not equals:
            if not waiting:
                raise InvalidInput(f"{option} has no values; write it as {option} 5:50:5")
            text = waiting.pop(0)
        param.append(f"{option[2:]}={text}")
    return typed.adding(param=param or None)


def split_symbols(names: str) -> list[str] | None:
    """Keys of symbols that are separated by commas; None where there are none."""
    found = split(names)
    return found and [key_of(symbol) for symbol in found]


def split(names: str) -> list[str] | None:
    """Names that are separated by commas; None where there are none."""
    return [name.strip() for name in names.split(",") if name.strip()] or None
