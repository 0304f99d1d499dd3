"""The web page of app.py (Gradio): one job at a time, the others wait."""

import os
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np

from configs.schema import Config
from scripts.core.runtime import USER_ERRORS, Run, RunError, sentence
from scripts.stages.page_job import Request, example_photos, make_video

CONSENT = (
    "Do not animate a person, or use a voice, without that person's consent. Do not deceive anybody about who said what. "
    "The videos say in their metadata that they are synthetic: leave that in, and label them visibly when you share them. "
    "For non-commercial research only."
)
KEPT = 3600  # seconds after which an uploaded file, or a video, is removed


def serve(config: Config, run: Run) -> None:
    """Serves the page until Ctrl-C or a signal. Raises RunError without gradio, or if the port is taken."""
    with TemporaryDirectory(prefix="talking-heads-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")
        page = build_page(config, run, Path(folder))
        run.say(f"the page: http://127.0.0.1:{config.page.port} (Ctrl-C ends it)")
        try:
            page.launch(**launch_settings(config, Path(folder)), prevent_thread_lock=False)
        except OSError as error:
            raise RunError(
                f"Port {config.page.port} cannot be used ({sentence(error)}): give another page.port=."
            ) from error
        finally:
            page.close()


def launch_settings(config: Config, folder: Path) -> dict[str, Any]:
    """Arguments of Gradio's launch: this computer alone, and uploads of limited size."""
    return {
        "server_name": "127.0.0.1",
        "server_port": config.page.port,
        "share": False,
        "max_file_size": f"{config.page.max_mb}mb",
        "allowed_paths": [str(folder)],
        "show_error": True,
        "quiet": True,
    }


def build_page(config: Config, run: Run, folder: Path) -> Any:
    """The page, a gradio.Blocks. folder: for files that last as long as the page."""
    try:
        import gradio as gr  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise RunError("The page needs gradio: pip install -e '.[app]'.") from error
    jobs = folder / "jobs"
    newest: dict[str | None, np.ndarray] = {}  # the last frame of the visitor whose video is made

    def generate(
        visitor: gr.Request,
        photo,
        sound,
        tune,
        motion,
        gain,
        blink,
        compose,
        progress=gr.Progress(),  # noqa: B008
    ):
        rmtree(jobs, ignore_errors=True)  # Gradio has copied the earlier videos
        jobs.mkdir()
        request = Request(photo, sound, tune, motion, gain, blink, compose)
        show = partial(newest.__setitem__, visitor.session_hash)
        try:
            video = make_video(request, config, run, Path(mkdtemp(dir=jobs)), progress, show)
        except USER_ERRORS as error:
            raise gr.Error(sentence(error), title="This does not work", print_exception=False) from error
        finally:
            newest.clear()
        return str(video)

    def preview(visitor: gr.Request):
        frame = newest.get(visitor.session_hash)
        return gr.Image(frame, visible=frame is not None)

    with gr.Blocks(title="Talking heads", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        gr.Markdown(f"# Talking heads\n{CONSENT}")
        with gr.Row():
            with gr.Column():
                photo = gr.Image(
                    label="Face", sources=["upload", "webcam"], type="filepath", format="png", height=300
                )
                if examples := example_photos(config, run, folder):
                    gr.Examples([[str(path)] for path in examples], photo, label="People who do not exist")
                sound = gr.Audio(
                    label=f"Voice (at most {config.page.max_seconds:g} s)",
                    sources=["upload", "microphone"],
                    type="filepath",
                )
                tune = gr.Checkbox(True, label="Tune the generator on the photo (more alike; 30 s longer)")
                with gr.Accordion("Motion and picture", open=False):
                    motion = gr.Checkbox(True, label="Head and eyelids move")
                    gain = gr.Slider(0, 5, 1, step=0.1, label="Motion of the head (1: a still sitter)")
                    blink = gr.Checkbox(True, label="Blinks")
                    choices = [("the face", "crop"), ("the whole photo", "photo")]
                    compose = gr.Radio(
                        choices, value="crop", label="Picture (in the whole photo the head stays)"
                    )
                button = gr.Button("Make the video", variant="primary")
            with gr.Column():
                video = gr.Video(label="Video (synthetic)", interactive=False, buttons=["download"])
                frame = gr.Image(label="Its newest frame", visible=False, interactive=False, format="jpeg")
        inputs = [photo, sound, tune, motion, gain, blink, compose]
        clock = gr.Timer(1, active=False)
        unseen: Any = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        clock.tick(preview, None, frame, **unseen)
        button.click(lambda: gr.Timer(active=True), None, clock, **unseen)
        made = button.click(generate, inputs, video, concurrency_limit=1, api_visibility="private")
        made.then(lambda: (gr.Timer(active=False), gr.Image(visible=False)), None, [clock, frame], **unseen)
    page.queue(max_size=config.page.queue, default_concurrency_limit=1)
    return page
