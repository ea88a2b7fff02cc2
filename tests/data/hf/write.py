"""Writes this folder: six pictures as Hugging Face's `datasets` 5.2 saves and exports them.

Run from the root of the repository: PYTHONPATH=tests python tests/data/hf/write.py
"""

from pathlib import Path

from dataset_forms import pictures, write_hf, write_hf_parquet

if __name__ == "__main__":
    folder = Path(__file__).parent
    write_hf(folder / "saved", pictures(6))
    write_hf_parquet(folder / "exported", pictures(6))
