"""Plans, measuring programs and results; run everything from the repository root. README.md describes the folders."""
