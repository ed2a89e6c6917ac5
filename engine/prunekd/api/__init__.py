"""The functions of the public face, one file per stage; each calls one room of the engine. `prunekd` names them."""
