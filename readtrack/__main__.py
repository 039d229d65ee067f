from readtrack.cli import main

main()
