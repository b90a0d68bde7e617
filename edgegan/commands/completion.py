"""`edgegan completion`: the script that lets a shell complete edgegan's commands and options."""

import click
from click.shell_completion import get_completion_class

from edgegan._cli import debug_option


@click.command(short_help="Let your shell complete commands and options.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
@debug_option
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that lets SHELL complete edgegan's commands, options and files.

    \b
    eval "$(edgegan completion bash)"                  in ~/.bashrc
    eval "$(edgegan completion zsh)"                   in ~/.zshrc
    edgegan completion fish > ~/.config/fish/completions/edgegan.fish
    """
    cls = get_completion_class(shell)
    assert cls is not None
    click.echo(cls(ctx.find_root().command, {}, "edgegan", "_EDGEGAN_COMPLETE").source())
