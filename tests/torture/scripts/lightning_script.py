"""An ordinary Lightning script: knows nothing of Outlast. 13.4 MB a save, every 10 of 100 steps, the best three kept.

Usage: lightning_script.py OUTPUT_DIR [--steps N] [--save N] [--top N] [--last | --link] [--versions] [--resume WHAT]
       [--package NAME] [--plugin] [--pause SECONDS]
"""

import argparse
import importlib
import sysconfig
import time
import warnings
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

warnings.filterwarnings("ignore")


class Text(torch.utils.data.Dataset):
    """Windows of bytes of the Python library's own sources."""

    def __init__(self, length: int = 64, files: int = 40) -> None:
        folder = Path(sysconfig.get_paths()["stdlib"])
        data = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py"))[:files])
        self.tokens = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        self.length = length

    def __len__(self) -> int:
        return len(self.tokens) // self.length - 1

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.tokens[index * self.length : (index + 1) * self.length].long()


def module(lightning, pause: float):
    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = GPT2LMHeadModel(GPT2Config(vocab_size=256, n_positions=128, n_embd=132, n_layer=5, n_head=4))

        def training_step(self, batch, index):
            time.sleep(pause)
            loss = self.model(input_ids=batch, labels=batch).loss
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
            schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 10)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    return Module()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--save", type=int, default=10)
    parser.add_argument("--top", type=int, default=3)
    parser.add_argument("--last", action="store_true")
    parser.add_argument("--link", action="store_true")
    parser.add_argument("--versions", action="store_true", help="no dirpath: Lightning makes version_N for each start")
    parser.add_argument("--resume")
    parser.add_argument("--package", default="lightning.pytorch")
    parser.add_argument("--pause", type=float, default=0.0)
    options = parser.parse_args()
    lightning = importlib.import_module(options.package)
    torch.set_num_threads(1)
    lightning.seed_everything(0)
    callback = importlib.import_module(f"{options.package}.callbacks").ModelCheckpoint(
        dirpath=None if options.versions else options.output,
        monitor="loss" if options.top > 1 else None,
        save_top_k=options.top,
        save_last="link" if options.link else options.last or None,
        every_n_train_steps=options.save,
    )
    loggers = importlib.import_module(f"{options.package}.loggers")
    trainer = lightning.Trainer(
        max_steps=options.steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=loggers.CSVLogger(options.output) if options.versions else False,
        callbacks=[callback],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=options.output,
    )
    torch.manual_seed(7)
    loader = torch.utils.data.DataLoader(Text(), batch_size=4, shuffle=True)
    trainer.fit(module(lightning, options.pause), loader, ckpt_path=options.resume)
    print("best", Path(callback.best_model_path).name, Path(callback.best_model_path).is_file())
    print("finished at step", trainer.global_step)


if __name__ == "__main__":
    main()
