"""python -m walengine: the same as the command walengine."""

from walengine.cli import main

if __name__ == "__main__":
    main()
