# fish completion for weir.

complete -c weir -f
complete -c weir -n __fish_use_subcommand -a top -d 'what every program that uses weir is doing, live'
complete -c weir -n __fish_use_subcommand -a stats -d 'all numbers, once'
complete -c weir -n __fish_use_subcommand -a export -d 'one HTTP endpoint for the host'
complete -c weir -n __fish_use_subcommand -a help -d 'the commands, or the options of one'
complete -c weir -n __fish_use_subcommand -s V -l version -d 'print the version'
complete -c weir -s h -l help -d 'print the options'
complete -c weir -n '__fish_seen_subcommand_from help' -a 'top stats export'

complete -c weir -n '__fish_seen_subcommand_from top stats export' -s p -l pid -x -a '(__fish_complete_pids)' -d 'only this process, and what descends from it'
complete -c weir -n '__fish_seen_subcommand_from top stats export' -s a -l all-users -d 'of all users whose numbers can be read'
complete -c weir -n '__fish_seen_subcommand_from top export' -s w -l window -x -d 'looks that percentiles, issues and charts are of'
complete -c weir -n '__fish_seen_subcommand_from top stats' -s j -l json -d 'as JSON'

complete -c weir -n '__fish_seen_subcommand_from top' -s d -l interval -x -d 'look every so many seconds'
complete -c weir -n '__fish_seen_subcommand_from top' -s f -l filter -x -d 'only what has it in its name, kind or command'
complete -c weir -n '__fish_seen_subcommand_from top' -s s -l sort -x -a 'name kind depth in out drop blocked starved wait service workers' -d 'sort by a column'
complete -c weir -n '__fish_seen_subcommand_from top' -s r -l reverse -d 'sort the other way round'
complete -c weir -n '__fish_seen_subcommand_from top' -s l -l list -d 'one list, not objects below their processes'
complete -c weir -n '__fish_seen_subcommand_from top' -s 1 -l once -d 'look twice, print a table, and end'
complete -c weir -n '__fish_seen_subcommand_from top' -l no-color -d 'no colours'

complete -c weir -n '__fish_seen_subcommand_from stats' -s o -l openmetrics -d 'as OpenMetrics text'

complete -c weir -n '__fish_seen_subcommand_from export' -s P -l port -x -d 'where; 0 takes a free one'
complete -c weir -n '__fish_seen_subcommand_from export' -s A -l address -x -a '127.0.0.1 0.0.0.0 ::1 ::' -d 'of which interface'
