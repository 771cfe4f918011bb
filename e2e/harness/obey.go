package harness

// Tiny guests that echo and heed their power button (acpi 6.5, 4.8.3.1.1): they
// look at COM1 and at PM1a_STS in turn.
var (
	// TinyObey enters S5 when the button is pressed.
	TinyObey = append(looking(), TinyPowerOff...)
	// TinyPatient notices that the button was pressed, and goes on.
	TinyPatient = append(looking(),
		0x66, 0xb8, 0x00, 0x01, // mov ax, PWRBTN
		0x66, 0xef, // out dx, ax: it is cleared by writing it
		0xeb, 0xdc, // jmp to the first look
	)
)

// looking is the part that is common; what follows it runs when the button was
// pressed, with the port of PM1a_STS in dx.
func looking() []byte {
	return []byte{
		0x66, 0xba, 0x02, 0x06, // mov dx, PM1a_EN
		0x66, 0xb8, 0x00, 0x01, // mov ax, PWRBTN
		0x66, 0xef, // out dx, ax
		0x66, 0xba, 0x00, 0x06, // mov dx, PM1a_STS
		0x66, 0xed, // in ax, dx
		0xf6, 0xc4, 0x01, // test ah, PWRBTN >> 8
		0x75, 0x11, // jnz past the end
		0x66, 0xba, 0xfd, 0x03, // mov dx, 0x3fd
		0xec,       // in al, dx
		0xa8, 0x01, // test al, 1
		0x74, 0xec, // jz to the first look
		0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xec,       // in al, dx
		0xee,       // out dx, al
		0xeb, 0xe4, // jmp to the first look
	}
}
