"""The benchmark of DreamBooth (30 subjects, 25 prompts) from one command: teaches, draws, scores and reports.

    python -m sitter.dreambench --data dreambooth --model FOLDER --out run --dino dino-vits16 --clip clip-vit-base-patch32
    python -m sitter.dreambench evaluate --pictures drawn --references real --text "a {} dog" --dino dino-vits16

The work is cut into small jobs (teach a subject, draw a prompt, score a folder), each of which is there whole or not at all. A run
that was stopped, killed or ran out of disk is started again by the same command and goes on where it was.

| module | what it is for |
|---|---|
| `data` | the folder of subjects and prompts |
| `plan` | what a run consists of: its settings and its jobs |
| `store` | files that appear whole or not at all |
| `worker` | does a job |
| `driver` | does the jobs here, one after the other; notes what failed |
| `queue`, `cluster`, `travel` | the same by workers that come and go; on several machines; files that travel to them and back |
| `summary` | from the scores of subjects to results.json and results.csv |
| `published` | what others report |
| `report`, `drawings` | report.html |
"""
