"""`axes completion`: the script that makes a shell complete commands, options and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script with which SHELL completes commands, options, models and prompt sets.

    Have it read when a shell starts; then open a new one.

    \b
    axes completion bash > ~/.local/share/bash-completion/completions/axes
    axes completion zsh > ~/.zfunc/_axes     # with fpath+=~/.zfunc before compinit in ~/.zshrc
    axes completion fish > ~/.config/fish/completions/axes.fish
    """
    script = get_completion_class(shell)
    assert script is not None
    root = context.find_root()
    click.echo(script(root.command, {}, "axes", "_AXES_COMPLETE").source())
