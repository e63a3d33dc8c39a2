// Package doctest runs the commands of the documentation, as they stand in the pages, in a terminal. A page says in
// comments, which its readers do not see, what it takes:
//
//	<!-- world: NAME -->      where its commands are run; worlds_test.go has what there is
//	<!-- not run: WHY -->     of the next block; before a page's first heading, of the whole page
//	<!-- exit: N -->          how the next block's last command ends, where that is not 0
//	<!-- wait -->             the next command is repeated until it says what the page shows
//	<!-- type: ANSWER -->     to the question that the next command asks
//	<!-- file: NAME -->       the next block is the content of a file
//	<!-- run                  the following lines are run too
//	COMMANDS
//	-->
//
// Blocks of sh are run as a whole, and each of their commands has to succeed. In a block of console, a line that begins
// with "$ " is a command, "> " continues it, and what follows is what it has to say: but for ids, times, durations and
// the width of columns, and with a line "..." for any number of lines.
package doctest
