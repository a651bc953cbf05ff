package main

import (
	"fmt"
	"strings"
)

func bashCompletion() string {
	var files, values, flags, vms []string
	for _, c := range commands {
		var names []string
		for _, f := range c.flagInfos() {
			names = append(names, f.names()...)
			for _, name := range f.names() {
				switch {
				case f.takesFile():
					files = append(files, c.name+"/"+name)
				case f.value != "":
					values = append(values, c.name+"/"+name)
				}
			}
		}
		flags = append(flags, fmt.Sprintf("\t%s) flags='%s --help' ;;\n", c.name, strings.Join(names, " ")))
		if c.takesVM() {
			vms = append(vms, c.name)
		}
	}
	names := strings.Join(commandNames(), " ")
	return `# bash completion for microvm, written by: microvm completion bash

_microvm() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd=${COMP_WORDS[1]} flags=
	COMPREPLY=()
	if [ "$COMP_CWORD" = 1 ]; then
		COMPREPLY=($(compgen -W '` + names + `' -- "$cur"))
		return
	fi
	case $cmd/$prev in
	` + strings.Join(files, "|") + `)
		compopt -o filenames 2> /dev/null
		COMPREPLY=($(compgen -f -- "$cur"))
		return ;;
	` + strings.Join(values, "|") + `)
		return ;;
	esac
	case $cmd in
` + strings.Join(flags, "") + `	esac
	case $cmd/$cur in
	*/-*)
		COMPREPLY=($(compgen -W "$flags" -- "$cur")) ;;
	help/*)
		COMPREPLY=($(compgen -W '` + names + `' -- "$cur")) ;;
	` + strings.Join(vms, "/*|") + `/*)
		COMPREPLY=($(compgen -W "$(microvm ps -q 2> /dev/null)" -- "$cur")) ;;
	esac
}
complete -F _microvm microvm
`
}
