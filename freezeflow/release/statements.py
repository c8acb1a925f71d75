"""What a release attests, as in-toto statements: how it was built, and what was tested.

Sources of the formats: the in-toto Attestation Framework (Statement v1, test-result v0.1) and SLSA 1.0
(provenance v1). What a command line on somebody's machine can attest is SLSA Build Level 1.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version

from freezeflow.release.contents import Artifact, Contents, ReleasedModel
from freezeflow.store.hashing import sha256_of
from freezeflow.values import Json
from freezeflow.version import VERSION

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"

# Described in docs/release.md.
BUILD_TYPE = "urn:freezeflow:build-type:recipe:1"
BUILDER = "urn:freezeflow:builder:command-line"


def provenance(contents: Contents) -> Json:
    """Who built every artifact from what: SLSA provenance v1."""
    return _statement(
        contents.artifacts(),
        PROVENANCE,
        {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "recipe": contents.recipe_name,
                    "variables": dict(contents.variables),
                    "models": [model.name for model in contents.models],
                },
                "internalParameters": {
                    "findings": [finding._asdict() for finding in contents.findings]
                },
                "resolvedDependencies": list(_dependencies(contents)),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"freezeflow": VERSION}},
                "metadata": {}
                if contents.date is None
                else {"finishedOn": timestamp(contents.date)},
            },
        },
    )


def test_result(contents: Contents) -> Json | None:
    """What was validated, and how: in-toto test-result v0.1; None where nothing was."""
    tested = [model for model in contents.models if model.verdicts]
    if not tested:
        return None
    return _statement(
        (artifact for model in tested for artifact in model.validated_artifacts()),
        TEST_RESULT,
        {
            # A validation that fails ends the run, so there is no release with failed tests.
            "result": "PASSED",
            "configuration": [_resource(*_recipe(contents)), _resource(*_lock(contents))],
            "passedTests": [test for model in tested for test in _tests(model)],
            "warnedTests": [],
            "failedTests": [],
        },
    )


def _statement(subjects: Iterable[Artifact], kind: str, predicate: Json) -> Json:
    return {
        "_type": STATEMENT,
        "subject": [_resource(subject.path, subject.sha256) for subject in subjects],
        "predicateType": kind,
        "predicate": predicate,
    }


def _resource(name: str, sha256: str) -> Json:
    return {"name": name, "digest": {"sha256": sha256}}


def _recipe(contents: Contents) -> tuple[str, str]:
    return f"recipe/{contents.recipe_name}", sha256_of(contents.recipe)


def _lock(contents: Contents) -> tuple[str, str]:
    return f"recipe/{contents.recipe_name}.lock", sha256_of(contents.lock)


def _dependencies(contents: Contents) -> Iterator[Json]:
    yield _resource(*_recipe(contents))
    yield _resource(*_lock(contents))
    if contents.revision is not None:
        yield {"name": "revision", "digest": {"gitCommit": contents.revision.commit}}
    for model in contents.models:
        for name, sha256 in model.source.items():
            yield _resource(f"source/{model.name}/{name}", sha256)
        for name, sha256 in model.inputs.items():
            yield _resource(f"input/{model.name}/{name}", sha256)
    for name, found in packages(contents).items():
        yield {"name": name, "uri": f"pkg:pypi/{name}@{found}"}


def packages(contents: Contents) -> dict[str, str]:
    """Package to version: those that freezeflow needs, and those that the steps depend on."""
    names = {"freezeflow"}
    for model in contents.models:
        names |= model.locked.built_with.keys() - {"python", "machine"}
        names |= {tool for step in model.locked.steps.values() for tool in step.tools}
    found = {}
    for name in sorted(names):
        try:
            found[name] = VERSION if name == "freezeflow" else version(name)
        except PackageNotFoundError:
            continue
    return found


def _tests(model: ReleasedModel) -> Iterator[str]:
    for step, verdict in sorted(model.verdicts.items()):
        for name, signature in sorted(verdict["signatures"].items()):
            for output in sorted(signature["outputs"]):
                yield f"{model.name}/{step}/{verdict['level']}/{name}/{output}"


def timestamp(date: int) -> str:
    """A date as RFC 3339 writes it, in UTC."""
    moment = datetime.datetime.fromtimestamp(date, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
