"""The command `kubectl-conch`, which kubectl finds in PATH and calls for `kubectl conch`."""

from importlib.metadata import version

import click

from conch.cli.history import history
from conch.cli.load import load
from conch.cli.model.commands import model
from conch.cli.plan import plan
from conch.cli.rollback import rollback
from conch.cli.rollout import COMMANDS
from conch.cli.status import status
from conch.nesting import allow_deep_objects
from conch_contract.process_end import end_before_finalization


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("kubectl-conch"), prog_name="kubectl conch")
def cli() -> None:
    """Inspect and control rollouts of models on NVIDIA Triton."""


for command in (status, history, rollback, *COMMANDS, plan, load, model):
    cli.add_command(command)


@end_before_finalization
def main() -> None:
    """Entry point of the console script."""
    allow_deep_objects()
    cli(prog_name="kubectl conch")
