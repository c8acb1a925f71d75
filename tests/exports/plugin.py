"""Export formats as another package would bring them."""

import dataclasses

from freezeflow.exports.format import Export, ExportedFile, ExportFormat
from freezeflow.params import param
from freezeflow.store.files import write_atomically


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    upper: bool = param("In capitals.", default=False)
    words: int = param("How many.", default=2, minimum=1)


def write(request):
    names = list(request.model.graph.nodes)[: request.params.words]
    text = "\n".join(name.upper() if request.params.upper else name for name in names)
    written = write_atomically(request.to, [text.encode()])
    return Export((ExportedFile(request.to, written),), {"words": len(names)})


MINE = ExportFormat(
    name="mine",
    summary="A list of nodes.",
    write=write,
    version=7,
    suffixes=(".txt",),
    params=Params,
    tools=("numpy",),
)
LACKING = dataclasses.replace(MINE, name="lacking", extra="melted", tools=("no-such-package",))
OTHER = MINE
NUMBER = 3
