"""``vitrail check``: is this data sound?"""

from __future__ import annotations

from pathlib import Path

from vitrail.cli.display import Output, OutputOptions, display
from vitrail.cli.options import configured
from vitrail.report.soundness_page import finding_lines, require_folder, summary_lines, to_json, write_soundness
from vitrail.soundness import CheckConfig, check_data

MOST_SHOWN = 3
"""Cases of a finding that the terminal shows."""


@configured(
    CheckConfig(),
    groups={
        "Options": ("task", "model", "weights", "strict"),
        "More options: features": ("image_size", "mean", "std", "batch_size", "seed"),
    },
)
def check(config: CheckConfig, data: str, /, *, out: Path = Path("check"), output: OutputOptions = Output()) -> None:
    """Look through a folder of images before anything is trained on it.

    It tells what was understood of the folder, and finds broken files, copies and near copies (also across parts, and
    with two labels), odd pictures, odd boxes, rare classes and parts that are too small. With the weights of a trained
    backbone it also finds labels that are probably wrong, and images that are unlike all others. Written are
    `check.html` with pictures, `check.json`, `findings.csv`, and `relabel.csv` where labels were judged. The data is
    not changed.

    **Examples**

    ```sh
    vitrail check photos/
    vitrail check photos/ --weights pretrained --out checked
    vitrail check boxes/ --task detection --strict
    vitrail check photos/ --model vit_tiny_patch16 --weights vit.safetensors --mean 0.5 --std 0.5
    ```

    Args:
        data: Folder of the data, or "sample".
        out: Folder to write to.
    """
    with display(output) as shown:
        require_folder(out)
        found = check_data(data, config, progress=shown.progress)
        for line in (*summary_lines(found), "", *finding_lines(found, MOST_SHOWN)):
            shown.say(line)
        if not found.findings:
            shown.say("Nothing was found.")
        for text in found.unchecked:
            shown.say(text)
        files = write_soundness(found, out)
        shown.say(f"Written: {', '.join(map(str, files))}")
        shown.result(to_json(found, files))
    if config.strict:
        found.require_sound()
