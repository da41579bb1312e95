"""What an ordinary script does before it resumes: asks Transformers for the last checkpoint of each folder given."""

import sys

from transformers.trainer_utils import get_last_checkpoint

for folder in sys.argv[1:]:
    print(get_last_checkpoint(folder), flush=True)
