"""Make the cluster run a Compose project, and wait until it does."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cli.arguments import add_compose, add_format
from cli.context import Context
from cli.exits import ExitCode
from cli.waiting import add_waiting

if TYPE_CHECKING:
    from dray.compose import Loaded, Problem
    from dray.views import ApplyProjectResponse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "services", nargs="*", metavar="SERVICE", help="only these and what they depend on"
    )
    add_compose(parser)
    building = parser.add_mutually_exclusive_group()
    building.add_argument(
        "--build", action="store_true", help="build images anew (default: those that are missing)"
    )
    building.add_argument(
        "--no-build", action="store_true", help="take images as they are, build none"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be done, and change nothing"
    )
    parser.add_argument(
        "--remove-orphans", action="store_true", help="remove services that the file lacks"
    )
    parser.add_argument(
        "--force-recreate", action="store_true", help="replace tasks that have not changed, too"
    )
    add_waiting(parser)
    add_format(parser)


def run(given: argparse.Namespace, context: Context) -> int:
    """Load the files, apply the project, and wait for it."""
    import asyncio
    import dataclasses
    from pathlib import Path

    from cli.compose_files import load_request
    from cli.selection import select
    from dray.compose import Rejected, load
    from dray.files import DiskFiles

    files = DiskFiles()
    environment = dict(context.settings.environment)
    request = load_request(given, environment, str(Path.cwd()), files.exists)
    loaded = load(request, files)
    if isinstance(loaded, Rejected):
        return _refuse(context, loaded.problems)
    for problem in loaded.warnings:
        context.warn(f"warning: {problem}")
    if loaded.refusals:
        return _refuse(context, loaded.refusals)
    for problem in loaded.ignored:
        context.warn(f"ignored: {problem}")
    if given.services:
        project = select(loaded.project, given.services)
        kept = {service.name for service in project.services}
        builds = tuple(each for each in loaded.builds if each.service in kept)
        loaded = dataclasses.replace(loaded, project=project, builds=builds)
    if not given.no_build and not given.dry_run:
        _build(given, context, loaded)
    return asyncio.run(_apply(given, context, loaded))


def _build(given: argparse.Namespace, context: Context, loaded: Loaded) -> None:
    """Build what is asked for or missing, and push what names a registry."""
    from typing import Any, cast

    from cli.building import build_command, must_build
    from cli.docker_client import build, present_images

    if not loaded.builds:
        return
    config = cast("dict[str, Any]", loaded.config)
    images = {each.service: each.image for each in loaded.builds}
    present = frozenset[str]() if given.build else present_images(images.values())
    for each in must_build(loaded.builds, config["services"], present, is_forced=given.build):
        platform = config["services"][each.service].get("platform") or ""
        secrets = config.get("secrets") or {}
        build(build_command(each, secrets, images, platform), context.err)


def _refuse(context: Context, problems: tuple[Problem, ...]) -> ExitCode:
    for problem in problems:
        context.warn(str(problem))
    context.warn("nothing was changed")
    return ExitCode.REFUSED


async def _apply(given: argparse.Namespace, context: Context, loaded: Loaded) -> ExitCode:
    import asyncio

    from cli.changes import ChangesView
    from cli.docker_client import credentials_of
    from cli.session import connected, tell_warnings
    from cli.waiting import finish
    from dray.client import Write
    from dray.images import registry_of

    project = loaded.project
    images = (each.task.container.image.reference for each in project.services)
    environment = dict(context.settings.environment)
    credentials = await asyncio.to_thread(
        credentials_of, {registry_of(image) for image in images}, environment
    )
    async with connected(context) as client:
        reply = await client.apply_project(
            project,
            Write(dry_run=given.dry_run),
            remove_absent_services=given.remove_orphans,
            force_replace=given.force_recreate,
            registry_credentials=credentials,
        )
        tell_warnings(context, reply.header)
        if given.dry_run:
            return _show_plan(context, project.name, reply)
        view = ChangesView(project.name, reply.revision, reply.services)
        return await finish(client, context, given, project.name, view)


def _show_plan(context: Context, project: str, reply: ApplyProjectResponse) -> ExitCode:
    from cli.changes import PlanView, change_lines, pending_lines
    from cli.settings import OutputFormat
    from dray.views import PlannedActionKind

    # The leader's next round is for all projects: what others lack is not this one's news.
    unplaced = [each for each in reply.unplaced if each.slots[0].project == project]
    actions = [
        each
        for each in reply.actions
        if each.slot.project == project or each.kind is not PlannedActionKind.CREATE
    ]
    view = PlanView(actions, unplaced)
    if context.settings.output_format in (None, OutputFormat.TABLE):
        lines = [*change_lines(project, reply.services), *pending_lines(unplaced)]
        context.out.writelines(f"{line}\n" for line in lines)
    context.show(view)
    if unplaced:
        context.warn("not all of it has room; nothing was changed")
        return ExitCode.REFUSED
    return ExitCode.CONVERGED
