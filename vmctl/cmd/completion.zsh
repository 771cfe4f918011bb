#compdef vmctl
# zsh completion for vmctl(8): put it into a folder of $fpath as _vmctl, or
# source it behind compinit.
_vmctl() {
	local line word
	local -a found
	while IFS= read -r line; do
		if [[ $line == :files ]]; then
			_files
			return
		fi
		word=${line%%$'\t'*}
		found+=("${word//:/\\:}${${line#$word}/$'\t'/:}")
	done < <("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
	_describe vmctl found
}
if [[ $funcstack[1] == _vmctl ]]; then
	_vmctl "$@"
else
	compdef _vmctl vmctl
fi
