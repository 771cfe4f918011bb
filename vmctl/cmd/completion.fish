# fish completion for vmctl(8): put it into ~/.config/fish/completions/vmctl.fish.
function __vmctl_complete
	set -l words (commandline -opc) (commandline -ct)
	set -l found ($words[1] __complete $words[2..-1] 2>/dev/null)
	if test "$found[1]" = :files
		__fish_complete_path (commandline -ct)
	else
		printf '%s\n' $found
	end
end
complete -c vmctl -f -a '(__vmctl_complete)'
