package main

import (
	"fmt"
	"strings"
)

func zshCompletion() string {
	var b strings.Builder
	b.WriteString(`#compdef microvm
# zsh completion for microvm, written by: microvm completion zsh

_microvm_vms() {
	local -a vms=(${(f)"$(microvm ps -q 2> /dev/null)"})
	compadd -a vms
}

_microvm() {
	local -a commands=(
		'help:Say more about a command'
`)
	for _, c := range commands {
		fmt.Fprintf(&b, "\t\t%s\n", zshQuote(c.name+":"+zshText(c.summary)))
	}
	b.WriteString(`	)
	if (( CURRENT == 2 )); then
		_describe command commands
		return
	fi
	local cmd=$words[2]
	shift words
	(( CURRENT-- ))
	case $cmd in
	help) _describe command commands ;;
`)
	for _, c := range commands {
		fmt.Fprintf(&b, "\t%s) _arguments", c.name)
		for _, f := range c.flagInfos() {
			for _, name := range f.names() {
				spec := "*" + name + "[" + zshText(f.text) + "]"
				switch {
				case f.takesFile():
					spec += ":" + f.value + ":_files"
				case f.value != "":
					spec += ":" + zshText(f.value) + ": "
				}
				fmt.Fprintf(&b, " \\\n\t\t%s", zshQuote(spec))
			}
		}
		if c.takesVM() {
			b.WriteString(" \\\n\t\t'*:VM:_microvm_vms'")
		}
		b.WriteString(" ;;\n")
	}
	b.WriteString(`	esac
}

if [ "$funcstack[1]" = _microvm ]; then
	_microvm "$@"
else
	compdef _microvm microvm
fi
`)
	return b.String()
}

// zshText escapes what _arguments and _describe take for their own.
func zshText(text string) string {
	return strings.NewReplacer("[", `\[`, "]", `\]`, ":", `\:`).Replace(text)
}

// zshQuote makes one word of a text.
func zshQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
