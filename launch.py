"""The door: `python launch.py --space spaces/moa.yaml` runs a search; `--help` lists everything else."""

from search.cli import launch

if __name__ == "__main__":
    launch()
